from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.transformer.activations import peak_activation_elements
from letstalk_core.networks.transformer.dit import LetsTalkDiT

BATCH, FRAMES, GRID, MEMORY, TOKENS = 1, 8, 4, 2, 4


class Allocated(TorchDispatchMode):
    """Counts the bytes of tensors made inside the block, and how many of them were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.storages: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        out = function(*args, **(kwargs or {}))
        for storage in (t.untyped_storage() for t in tree_iter(out) if isinstance(t, Tensor)):
            if storage._cdata not in self.storages | given:
                self.storages.add(storage._cdata)
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return out

    def _freed(self, storage: int, size: int) -> None:
        self.alive -= size
        self.storages.discard(storage)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "changes",
    [{}, {"mlp_ratio": 2.0}, {"portrait_fusion": "siamese"}, {"portrait_fusion": "direct"}, {"depth": 4}],
    ids=str,
)
@torch.no_grad()  # as hosts run it
def test_estimate_is_what_torch_allocates(changes: dict[str, Any], dtype: torch.dtype) -> None:
    shape = {"hidden_size": 64, "depth": 2, "num_heads": 4, "in_channels": 4, "audio_token_dim": 16}
    config = DiTConfig(**{**shape, **changes})
    dit = LetsTalkDiT(config, dtype=dtype).requires_grad_(False)
    x = torch.zeros(BATCH, FRAMES, 4, GRID, GRID, dtype=dtype)
    conditions = (x[:, 0], x[:, :MEMORY], torch.zeros(BATCH, FRAMES, TOKENS, 16, dtype=dtype))
    dit(x, torch.zeros(BATCH), *conditions)  # position tables are kept from here on
    cache: dict[str, Any] = {}
    with Allocated() as allocated:
        dit(x, torch.zeros(BATCH), *conditions, cache=cache)
    estimate = dtype.itemsize * peak_activation_elements(
        config,
        audio_tokens=TOKENS,
        batch=BATCH,
        frames=FRAMES,
        height=GRID,
        width=GRID,
        memory=MEMORY,
        float16=dtype == torch.float16,
    )
    assert 0.85 < estimate / allocated.peak < 1.25  # so small a shape has its share of odds and ends
