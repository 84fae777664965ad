from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def frames() -> Callable[..., Tensor]:
    """Smooth moving colours: (t, h, w, 3) uint8."""

    def make(count: int, height: int = 48, width: int = 64) -> Tensor:
        t = torch.arange(count)[:, None, None]
        y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
        red, green, blue = 40 + 3 * x + 0 * y, 60 + 2 * y + 0 * x, 128 + 100 * torch.sin(t / 5.0) + 0 * x + 0 * y
        channels = torch.broadcast_tensors(red + 0 * t, green + 0 * t, blue.round())
        return torch.stack(channels, -1).clamp(0, 255).to(torch.uint8)

    return make
