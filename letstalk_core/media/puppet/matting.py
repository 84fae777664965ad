"""What of a portrait is head and hair, and what is behind: so that a background stays while the head moves.

No network: certain places (the face; the upper edges of the picture, where they look unlike the hair) spread their
label to places of similar colour (a random walk on pixels, solved from coarse to fine), and a guided filter brings
the edge to the picture's own resolution. Where no edge of the picture is surely background, everything is head,
and the background near it moves along as if it were hair.
Source: Grady, "Random walks for image segmentation", 2006; He et al., "Guided image filtering", 2010.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .fields import Head
from .geometry import EXTENT, axis_grid, grow, smooth_step

COARSE = (26, 52, 104)  # sides of the pictures on which labels walk
STEPS = (120, 50, 40)
CONTRAST = 120.0  # of colours that stop the walk
PRIOR = 0.012  # weight of the place, beside four neighbours of up to 1
BESIDE = 0.9  # halves of the face: nearer to its middle the upper edge of a picture may be hair
GUIDE_RADIUS, GUIDE_EPS = 3, 2e-4  # px of the texture at half its size


def head_matte(texture: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Share of the head (b, 1, T, T) in each pixel, and the picture behind it (b, 3, T, T)."""
    alpha = None
    for side, steps in zip(COARSE, STEPS, strict=True):
        small = F.interpolate(texture, size=(side, side), mode="bilinear", antialias=True).clamp(min=0).sqrt()
        front, back, likely = _seeds(small, head)
        start = (
            0.5 * torch.ones_like(front)
            if alpha is None
            else F.interpolate(alpha, size=(side, side), mode="bilinear")
        )
        alpha = _walk(small, front, back, likely, start, steps)
    assert alpha is not None
    # Pictures with too little that is surely behind the head keep it as a whole.
    certain = ((alpha < 0.25).float().mean((1, 2, 3)) > 0.06)[:, None, None, None]
    fine = smooth_step(0.06, 0.94, _guided(texture, smooth_step(0.38, 0.62, alpha)))
    fine = torch.where(certain, fine, torch.ones_like(fine))
    behind = (F.max_pool2d(fine, 7, 1, 3) < 0.03).float()
    return fine, torch.where(certain, grow(texture, behind), texture)


def _seeds(small: Tensor, head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """What is surely head or body, surely background, and likely head by its place: (b, 1, n, n) each, 0 to 1."""
    grid = axis_grid(small.shape[-1], EXTENT, small.device)
    middle, half = head.middle[:, None, None], head.half[:, None, None]
    x = (grid[..., 0] - middle[..., 0]) / half[..., 0]
    y = (grid[..., 1] - middle[..., 1]) / half[..., 1]
    face = (x**2 + (y / 1.04) ** 2 < 0.92).float()
    skull = torch.sqrt((x / 1.18) ** 2 + ((y + 0.22) / 1.32) ** 2)
    likely = torch.where(y > 0.6, smooth_step(2.6, 1.0, x.abs()), smooth_step(1.30, 0.96, skull))
    face = torch.maximum(face, (skull < 0.80).float())
    neck = ((x.abs() < 0.55) & (y > 0)).float()
    body = ((y > 1.75) & (x.abs() < 2.0)).float()
    front = torch.maximum(torch.maximum(face, neck), body)[:, None]
    # Hair: what is just above the face. Edges that look like it may be hair.
    above = ((x.abs() < 0.55) & (y < -1.02) & (y > -1.32)).float()[:, None]
    above = torch.where(above.sum((2, 3), keepdim=True) > 0, above, front)
    count = above.sum((2, 3), keepdim=True)
    mean = (small * above).sum((2, 3), keepdim=True) / count
    spread = (((small - mean) ** 2).sum(1, keepdim=True) * above).sum((2, 3), keepdim=True) / count
    unlike = ((small - mean) ** 2).sum(1, keepdim=True) > (2.5 * spread).clamp(min=0.02)
    edge = (grid[..., 0].abs().clamp(min=0) > 0.93) & (y < 0.7) & (x.abs() > 1.45)
    edge = edge | ((grid[..., 1] < -0.97) & (y < -1.5) & (x.abs() > BESIDE))
    return front, edge[:, None].float() * unlike * (1 - front), likely[:, None]


def _walk(small: Tensor, front: Tensor, back: Tensor, likely: Tensor, alpha: Tensor, steps: int) -> Tensor:
    """Chances that a random walk from each pixel, slow across edges of colour, ends on the head first."""
    right = torch.exp(-CONTRAST * ((small[..., 1:] - small[..., :-1]) ** 2).sum(1, keepdim=True)) + 1e-3
    down = torch.exp(-CONTRAST * ((small[..., 1:, :] - small[..., :-1, :]) ** 2).sum(1, keepdim=True)) + 1e-3
    total = F.pad(right, (0, 1)) + F.pad(right, (1, 0)) + F.pad(down, (0, 0, 0, 1)) + F.pad(down, (0, 0, 1, 0))
    total, pull = total + PRIOR, PRIOR * likely
    free = 1 - torch.maximum(front, back)
    for _ in range(steps):
        found = F.pad(right * alpha[..., 1:], (0, 1)) + F.pad(right * alpha[..., :-1], (1, 0))
        found = (
            found + F.pad(down * alpha[..., 1:, :], (0, 0, 0, 1)) + F.pad(down * alpha[..., :-1, :], (0, 0, 1, 0))
        )
        alpha = front + free * (found + pull) / total
    return alpha


def _guided(texture: Tensor, rough: Tensor) -> Tensor:
    """The matte with the edges of the picture's brightness; its coefficients are found at half the size."""
    r, size = GUIDE_RADIUS, [side // 2 for side in texture.shape[-2:]]

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * r + 1, 1, r, count_include_pad=False)

    full = texture.mean(1, keepdim=True)
    guide = F.interpolate(full, size=size, mode="bilinear", antialias=True)
    rough = F.interpolate(rough, size=size, mode="bilinear")
    g, p = mean(guide), mean(rough)
    slope = (mean(guide * rough) - g * p) / (mean(guide * guide) - g * g + GUIDE_EPS)
    both = torch.cat([mean(slope), mean(p - slope * g)], 1)
    slope, level = F.interpolate(both, size=full.shape[-2:], mode="bilinear").split(1, 1)
    return (slope * full + level).clamp(0, 1)
