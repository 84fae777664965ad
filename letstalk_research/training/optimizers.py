"""Optimisers of the training stages: AdamW, and Muon for hidden matrices and convolutions.

Muon is written out here although torch has one: torch's takes 2-D parameters only (no convolutions) and works in
bfloat16, which CPUs without such instructions multiply several times slower than float32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .config import OptimizerConfig
from .runtime import fast_bfloat16_cpu

# Quintic of Jordan 2024, steepest at zero; ends in singular values 0.7..1.2.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Approximately replace all singular values by 1. Shapes: (b, n, m) -> same; computed in the given dtype.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    result: Tensor = x.mT if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; weights of more than two dimensions count as (outputs, the rest).

    Updates are scaled by 0.2 sqrt(max(n, m)), which gives them the size of AdamW's, so that one learning rate
    serves both (Liu et al. 2025, arXiv 2502.16982). In bfloat16 where that is fast, in float32 elsewhere.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p, memory_format=torch.contiguous_format)
                buffer: Tensor = state["momentum"]
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = torch.lerp(p.grad.contiguous(), buffer, group["momentum"])  # Nesterov
                matrix = update.reshape(update.shape[0], -1)
                shapes[(matrix.shape[0], matrix.shape[1])].append((p, matrix))
            for (rows, columns), members in shapes.items():  # one batched multiplication per shape
                stacked = torch.stack([m for _, m in members])
                fast = stacked.is_cuda or (stacked.device.type == "cpu" and fast_bfloat16_cpu())
                ortho = orthogonalise(stacked.bfloat16() if fast else stacked.float())
                size = 0.2 * math.sqrt(max(rows, columns))
                for (p, _), matrix in zip(members, ortho, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(matrix.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * size)


def _is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether Muon fits: matrices and full convolutions inside the network, not gains or first and last layers."""
    outer = {"conv_in", "conv_out", "patch_embed", "time_embed", "audio_embed", "final", "modulation", "heads"}
    if parameter.ndim < 2 or outer & set(name.split(".")):
        return False
    return _short_side(parameter) >= 16


def _short_side(parameter: Tensor) -> int:
    return min(parameter.shape[0], parameter[0].numel())


def build_optimizers(module: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """One or two optimisers over the trainable parameters; each group keeps its first rate as "initial_lr"."""
    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    limit = config.muon_max_side or math.inf
    hidden = [p for n, p in named if config.name == "muon" and _is_hidden(n, p) and _short_side(p) <= limit]
    chosen = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in chosen]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},  # gains and biases are not decayed
    ]
    groups = [g for g in groups if g["params"]]
    optimizers: list[torch.optim.Optimizer] = []
    if groups:
        options: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
        try:
            optimizers.append(torch.optim.AdamW(groups, fused=True, **options))
        except RuntimeError:  # older torch has no fused AdamW on this device
            optimizers.append(torch.optim.AdamW(groups, **options))
    if hidden:
        rate = config.muon_lr or config.lr
        optimizers.append(Muon(hidden, rate, momentum=config.muon_momentum, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(config: OptimizerConfig, step: int, progress: float) -> float:
    """Factor on the learning rate at a step, `progress` (0..1) of the budget used: warm-up, flat, cosine decay."""
    factor = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if progress > config.flat and config.flat < 1:
        position = min(1.0, (progress - config.flat) / (1 - config.flat))
        cosine = 0.5 * (1 + math.cos(math.pi * position))
        factor *= config.final_factor + (1 - config.final_factor) * cosine
    return factor
