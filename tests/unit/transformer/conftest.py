from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.transformer.dit import LetsTalkDiT

TINY = {"hidden_size": 32, "depth": 2, "num_heads": 2, "in_channels": 4, "linear_head_dim": 16, "mlp_ratio": 2.0}
TRAINED = {"audio_token_dim": 12, "grid_size": (4, 4), "clip_frames": 5}


@pytest.fixture
def make_dit() -> Callable[..., LetsTalkDiT]:
    """A tiny denoiser whose every weight is random, so that no branch is switched off."""

    def make(**changes: Any) -> LetsTalkDiT:
        torch.manual_seed(0)
        dit = LetsTalkDiT(DiTConfig(**{**TINY, **TRAINED, **changes}))
        for parameter in dit.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        return dit.requires_grad_(True)

    return make


@pytest.fixture
def make_inputs() -> Callable[..., dict[str, Tensor]]:
    """Inputs for it: keywords of `forward`."""

    def make(
        *, batch: int = 2, frames: int = 5, memory: int = 2, grid: tuple[int, int] = (4, 4), seed: int = 0
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        return {
            "x": noise(batch, frames, 4, *grid),
            "timestep": torch.rand(batch, generator=generator) * 999,
            "portrait": noise(batch, 4, *grid),
            "memory": noise(batch, memory, 4, *grid),
            "audio": noise(batch, frames, 3, 12),
        }

    return make
