"""Low-rank changes to the linear layers of a trained network: what is learned fits into a small file.

W + B A, A random and B zero at first, so that training starts at the network as it is (Hu et al. 2021, LoRA). The
file has the names that ComfyUI's own LoRA loaders look for.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

MARK = ".parametrizations.weight."


class _LowRank(nn.Module):
    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.randn(rank, columns, device=weight.device) / math.sqrt(columns))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).to(weight.dtype)


def add_lora(network: nn.Module, rank: int) -> None:
    """Freeze a network and give each of its linear layers that is wider than `rank` a change to learn."""
    network.requires_grad_(False)
    layers = [m for m in network.modules() if isinstance(m, nn.Linear)]
    for layer in layers:
        if min(layer.weight.shape) > rank:
            parametrize.register_parametrization(layer, "weight", _LowRank(layer.weight, rank))


@torch.no_grad()
def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """The weights by the names that the network has without changes, which are added in."""
    state: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        layer, changed, part = key.partition(MARK)
        if not changed:
            state[key] = value
        elif part == "original":
            changed_layer: Any = network.get_submodule(layer)
            state[f"{layer}.weight"] = changed_layer.weight.detach()
    return state


@torch.no_grad()
def lora_tensors(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The changes alone, as ComfyUI reads them: lora_up, lora_down and alpha of each layer, float16."""
    tensors: dict[str, Tensor] = {}
    layers: list[tuple[str, Any]] = list(network.named_modules())
    for name, layer in layers:
        if parametrize.is_parametrized(layer, "weight"):
            change = layer.parametrizations.weight[0]
            tensors[f"{prefix}{name}.lora_up.weight"] = change.up.half()
            tensors[f"{prefix}{name}.lora_down.weight"] = change.down.half()
            tensors[f"{prefix}{name}.alpha"] = torch.tensor(float(len(change.down)))
    return tensors
