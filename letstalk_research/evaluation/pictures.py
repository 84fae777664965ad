"""Small copies of frames, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ..output import save_png

Pictures = NDArray[np.uint8]
TILE = 128
LONG_ROW = 8  # pictures in a row of a sheet without rows of its own


def thumbnails(frames: Tensor, side: int = TILE) -> Pictures:
    """Small copies: (n, h, w, 3) uint8 -> (n, side, side, 3) uint8."""
    x = rearrange(frames.cpu().float(), "n h w c -> n c h w")
    small = F.interpolate(x, size=(side, side), mode="area").round().to(torch.uint8)
    return np.asarray(rearrange(small, "n c h w -> n h w c").numpy())


def spread(count: int, most: int) -> list[int]:
    """Up to `most` evenly spaced indices of `count` things."""
    return [int(i) for i in np.linspace(0, count - 1, min(most, count)).round()]


def save_sheet(groups: Sequence[Pictures], path: Path, rows: int | None = None) -> None:
    """One PNG of groups of pictures (n, h, w, 3), one below the other, `rows` each. Raises: OutputError.

    Without `rows` each group takes as many rows as it needs, the last one filled up with white.
    """
    bands = []
    for group in groups:
        columns = len(group) // rows if rows else min(LONG_ROW, len(group))
        missing = -len(group) % columns
        full = np.concatenate([group, np.full((missing, *group.shape[1:]), 255, np.uint8)])
        bands.append(rearrange(full, "(r n) h w c -> (r h) (n w) c", n=columns))
    width = max(band.shape[1] for band in bands)
    padded = [np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0)), constant_values=255) for b in bands]
    save_png(np.concatenate(padded), path)
