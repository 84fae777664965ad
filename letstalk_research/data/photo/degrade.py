"""Photographs as people have them: badly lit, off colour, noisy, blurred, small, grey, saved as JPEG too often.

All of it is done to a portrait's texture before it moves: portrait and frames then share it, noise travels with
the skin as it does when a noisy photograph is animated, and the flow between them stays exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.media.puppet.geometry import EXTENT, axis_grid, blur


@dataclass(frozen=True)
class Wear:
    """What happened to one photograph. The defaults change nothing."""

    gamma: float = 1.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    side_angle: float = 0.0
    side_light: float = 0.0  # change of light from the middle to the edge of the frame
    blur: float = 0.0  # px of the texture
    reduce: float = 1.0  # to this part of the size and back
    noise: float = 0.0  # standard deviation
    noise_seed: int = 0
    grey: bool = False
    quality: int = 100  # of JPEG


def sample_wear(rng: np.random.Generator) -> Wear:
    """Light and colour for all; each of the other faults for some, one in three pictures has none of them."""
    warm, tint, exposure = rng.normal(0, (0.045, 0.02, 0.09))
    gain = np.exp(exposure) * np.array([1 + warm, 1 + tint, 1 - warm])
    bad = rng.random(6) < (0.18, 0.15, 0.30, 0.10, 0.35, 0.12)
    bad &= rng.random() > 0.3
    return Wear(
        gamma=float(np.exp(rng.normal(0, 0.30 if bad[5] else 0.16))),
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        saturation=float(np.exp(rng.normal(0, 0.15))),
        side_angle=float(rng.uniform(0, 2 * math.pi)),
        side_light=float(rng.uniform(0, 0.45 if bad[5] else 0.15)),
        blur=float(rng.uniform(0.6, 1.8)) if bad[0] else 0.0,
        reduce=float(rng.uniform(0.25, 0.7)) if bad[1] else 1.0,
        noise=float(rng.uniform(0.01, 0.05)) if bad[2] else 0.0,
        noise_seed=int(rng.integers(2**31)),
        grey=bool(bad[3]),
        quality=int(rng.integers(25, 85)) if bad[4] else 100,
    )


def apply_wear(texture: Tensor, wear: Wear) -> Tensor:
    """One picture (3, T, T) in 0..1, as the camera and the years left it."""
    x = texture[None].clamp(0, 1) ** wear.gamma
    x = x * torch.tensor(wear.gain, device=x.device).view(1, 3, 1, 1)
    grid = axis_grid(x.shape[-1], EXTENT, x.device)
    toward = grid[..., 0] * math.cos(wear.side_angle) + grid[..., 1] * math.sin(wear.side_angle)
    x = x * (1 + wear.side_light * toward)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (0.0 if wear.grey else wear.saturation)
    x = x.clamp(0, 1)
    if wear.blur:
        x = blur(x, wear.blur)
    if wear.reduce < 1:
        size = x.shape[-2:]
        small = [max(8, round(s * wear.reduce)) for s in size]
        x = F.interpolate(x, size=small, mode="bilinear", antialias=True)
        x = F.interpolate(x, size=size, mode="bicubic").clamp(0, 1)
    if wear.noise:
        generator = torch.Generator().manual_seed(wear.noise_seed)
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        if wear.grey:
            noise = noise.mean(1, keepdim=True) * math.sqrt(3)
        x = x + wear.noise * (0.5 + x.mean(1, keepdim=True).sqrt()) * noise
    if wear.quality < 100:
        x = _jpeg(x.clamp(0, 1), wear.quality)
    return x.clamp(0, 1)[0]


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """The discrete cosine transform of 8 values, orthonormal."""
    n = torch.arange(8, dtype=torch.float32)
    basis = torch.cos(math.pi * (2 * n + 1) * n[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _jpeg(x: Tensor, quality: int) -> Tensor:
    """What 8 x 8 blocks with steps that grow with frequency, and colour at half size, leave of (1, 3, h, w).

    The steps follow the slope of the usual tables of JPEG without being them.
    """
    scale = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    to_ycc = x.new_tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, x) * 255
    steps = torch.arange(8, device=x.device)[:, None] + torch.arange(8, device=x.device)
    luma = _blocks(ycc[:, :1] - 128, (10 + 7 * steps) * scale) + 128
    chroma = _blocks(F.avg_pool2d(ycc[:, 1:], 2), (17 + 14 * steps).clamp(max=99) * scale)
    ycc = torch.cat([luma, F.interpolate(chroma, scale_factor=2, mode="bilinear")], 1) / 255
    return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), ycc)[..., :height, :width]


def _blocks(x: Tensor, steps: Tensor) -> Tensor:
    b, c, h, w = x.shape
    cosines = _cosines().to(x.device)
    tiles = x.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    spectrum = cosines @ tiles @ cosines.T
    steps = steps.clamp(min=1)
    spectrum = (spectrum / steps).round() * steps
    return (cosines.T @ spectrum @ cosines).transpose(3, 4).reshape(b, c, h, w)
