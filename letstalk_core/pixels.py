"""Pixels as files, networks and hosts hold them: uint8, float in [-1, 1] with channels first, float in [0, 1]."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """(..., h, w, 3) uint8 -> (..., 3, h, w) float32 in [-1, 1]; strides stay: the channels_last format."""
    return rearrange(images, "... h w c -> ... c h w").float() / 127.5 - 1


def from_unit(images: Tensor) -> Tensor:
    """(..., 3, h, w) in [-1, 1] -> (..., h, w, 3) uint8; what lies outside is cut off."""
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return rearrange(pixels, "... c h w -> ... h w c")


def to_bytes(images: Tensor) -> Tensor:
    """Float in [0, 1] -> uint8 of the same shape; what lies outside is cut off, uint8 stays as it is."""
    return images if images.dtype == torch.uint8 else (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


def from_bytes(images: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1] of the same shape."""
    return images.float() / 255
