"""Colours of latents, for previews while sampling: a linear map, fitted to pictures."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def fit_latent_preview(
    latents: Tensor, images: Tensor
) -> tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]]:
    """Least-squares map from scaled latents to colours: rgb in [-1, 1] = latents @ factors + bias.

    Shapes: latents (n, c, h, w), images (n, 3, H, W) -> factors (c, 3), bias (3,).
    """
    colours = F.adaptive_avg_pool2d(images, (latents.shape[-2], latents.shape[-1]))
    x = rearrange(latents.double(), "n c h w -> (n h w) c")
    y = rearrange(colours.double(), "n c h w -> (n h w) c")
    ones = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    ridge = 1e-3 * len(ones) * torch.eye(ones.shape[1], dtype=torch.float64)
    solution: Any = torch.linalg.solve(ones.mT @ ones + ridge, ones.mT @ y)
    rows = [tuple(round(float(v), 5) for v in row) for row in solution]
    factors = tuple((r[0], r[1], r[2]) for r in rows[:-1])
    return factors, rows[-1]
