from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def tone() -> Callable[..., Tensor]:
    """A chirp-like tone with noise: (samples,)."""

    def make(seconds: float, rate: int = 16000, seed: int = 0) -> Tensor:
        time = torch.arange(round(seconds * rate)) / rate
        noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
        return 0.4 * torch.sin(6.283 * (200 + 40 * time) * time) + 0.05 * noise * torch.sin(3 * time) ** 2

    return make
