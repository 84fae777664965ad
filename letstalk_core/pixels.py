"""Pixels on their way into and out of networks: uint8, channels last, and float in [-1, 1], channels first."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["from_unit", "to_unit"]


def to_unit(images: Tensor) -> Tensor:
    """(..., h, w, 3) uint8 -> (..., 3, h, w) float32 in [-1, 1]; strides stay: the channels_last format."""
    return rearrange(images, "... h w c -> ... c h w").float() / 127.5 - 1


def from_unit(images: Tensor) -> Tensor:
    """(..., 3, h, w) in [-1, 1] -> (..., h, w, 3) uint8; what lies outside is cut off."""
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return rearrange(pixels, "... c h w -> ... h w c")
