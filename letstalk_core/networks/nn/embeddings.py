"""Embeddings of the denoiser: patches, fixed sine-cosine positions of space and time, and the timestep.

Position tables are computed for the grid at hand, not stored in checkpoints: any height, width and length works.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .layers import PLAIN, Layers

TIMESTEP_FEATURES = 256


def axis_positions(count: int, trained: int) -> Tensor:
    """Coordinates (count,) float64 of `count` places on an axis trained with `trained`: 0, 1, 2, …

    Pressed together when there are more than were trained, so that none lies outside the trained range.
    """
    positions = torch.arange(count, dtype=torch.float64, device="cpu")
    trained = max(trained, 1)
    return positions if count <= trained else positions * ((trained - 1) / (count - 1))


def time_positions(memory: int, frames: int, trained_memory: int, trained_frames: int) -> tuple[Tensor, Tensor]:
    """Time coordinates of memory frames and of the clip; each is pressed into its own trained range when longer.

    The clip starts where it did in training, and fewer memory frames than trained lie just before it: the most
    recent frame keeps its coordinate whatever the number given.
    """
    before = axis_positions(memory, trained_memory) + max(trained_memory - memory, 0)
    return before, trained_memory + axis_positions(frames, trained_frames)


def sincos(positions: Tensor, dim: int) -> Tensor:
    """positions (n,) -> (n, dim): sines, then cosines, at dim/2 frequencies of base 10000 (the MAE convention)."""
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64, device=positions.device) / (dim // 2))
    angles = positions.to(torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@lru_cache(maxsize=64)
def space_table(
    grid: tuple[int, int], trained: tuple[int, int], dim: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(rows * columns, dim): the first half of the channels holds the column, the second half the row."""
    with torch.inference_mode(False):  # kept for later calls, which may train
        rows = sincos(axis_positions(grid[0], trained[0]), dim // 2)
        columns = sincos(axis_positions(grid[1], trained[1]), dim // 2)
        table = torch.cat([columns.expand(grid[0], -1, -1), rows[:, None].expand(-1, grid[1], -1)], dim=-1)
        return table.reshape(-1, dim).to(device=device, dtype=dtype)


@lru_cache(maxsize=64)
def time_table(
    memory: int, frames: int, trained: tuple[int, int], dim: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Tables of memory (memory, dim) and clip (frames, dim); `trained` counts memory and clip frames."""
    with torch.inference_mode(False):
        before, clip = (sincos(p, dim) for p in time_positions(memory, frames, *trained))
        return before.to(device=device, dtype=dtype), clip.to(device=device, dtype=dtype)


def timestep_features(timestep: Tensor, dim: int = TIMESTEP_FEATURES) -> Tensor:
    """timestep (b,), possibly fractional -> (b, dim) float32: cosines, then sines (the DDPM convention)."""
    exponents = torch.arange(dim // 2, dtype=torch.float32, device=timestep.device) / (dim // 2)
    angles = timestep.float()[:, None] * torch.exp(-math.log(10000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class PatchEmbedding(nn.Module):
    """Latent frames (b, c, h, w) -> tokens (b, h*w / patch**2, d)."""

    def __init__(self, channels: int, dim: int, patch_size: int, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.proj = layers.conv2d(channels, dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.proj(x), "b d h w -> b (h w) d")


class TimestepEmbedding(nn.Module):
    """Timestep (b,) -> (b, d): 256 sinusoids, Linear-SiLU-Linear."""

    def __init__(self, dim: int, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.linear_1 = layers.linear(TIMESTEP_FEATURES, dim)
        self.linear_2 = layers.linear(dim, dim)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """`dtype` is that of the activations: the sinusoids themselves need float32."""
        return self.linear_2(F.silu(self.linear_1(timestep_features(timestep).to(dtype))))
