from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shrunk(frames: Tensor, side: int) -> Tensor:
    """What is left of frames (t, h, w, 3) uint8 that were `side` pixels wide in between."""
    x = frames.permute(0, 3, 1, 2).float()
    x = F.interpolate(F.interpolate(x, size=side, mode="area"), size=frames.shape[1], mode="bilinear")
    return x.round().to(torch.uint8).permute(0, 2, 3, 1)
