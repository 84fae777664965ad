"""What is behind faces, and pictures without any: textures, shuffled pieces, painted heads."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from letstalk_core.media.portrait.face_geometry import upright_square

from .face_heads import SIDE

__all__ = ["painted", "shuffled", "texture", "without_face"]


def texture(rng: Generator) -> Tensor:
    """Smooth noise of several sizes, stripes and shapes in random colours."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    picture = torch.rand(3, 1, 1, generator=generator).expand(3, SIDE, SIDE).clone()
    for cells in (2, 4, 8, 16, 48, 96):
        if rng.random() < 0.6:
            colours = 3 if rng.random() < 0.5 else 1
            noise = torch.rand(1, colours, cells, cells, generator=generator) - 0.5
            mode = "bilinear" if rng.random() < 0.7 else "nearest"
            picture = picture + float(rng.uniform(0, 0.8)) * F.interpolate(noise, size=(SIDE, SIDE), mode=mode)[0]
    axis = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    if rng.random() < 0.4:
        angle, waves = rng.uniform(0, math.pi), rng.uniform(5, 60)
        stripe = torch.sin(waves * (x * math.cos(angle) + y * math.sin(angle)))
        picture = picture + float(rng.uniform(0, 0.4)) * stripe
    for _ in range(int(rng.integers(0, 9))):  # discs and boxes, pairs of dots among them
        cx, cy, a, b = (float(v) for v in rng.uniform([-1, -1, 0.03, 0.03], [1, 1, 0.5, 0.5]))
        u, v = (x - cx).abs() / a, (y - cy).abs() / b
        inside = (u * u + v * v < 1) if rng.random() < 0.5 else (torch.maximum(u, v) < 1)
        picture = torch.where(inside, torch.rand(3, 1, 1, generator=generator), picture)
    return picture.clamp(0, 1)


def shuffled(picture: Tensor, rng: Generator) -> Tensor:
    """The tiles of a picture in another order."""
    n = int(rng.choice([4, 6, 8, 12]))
    tiles = picture.unflatten(2, (n, SIDE // n)).unflatten(1, (n, SIDE // n)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    tiles = tiles[torch.from_numpy(rng.permutation(n * n))]
    return tiles.unflatten(0, (n, n)).permute(2, 0, 3, 1, 4).reshape(3, SIDE, SIDE)


def without_face(picture: Tensor, points: Tensor, rng: Generator) -> Tensor:
    """The face covered by what is blurred around it, by another part of the picture, or by its own tiles."""
    centre, size, _ = upright_square(points)
    axis = torch.arange(SIDE) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    d = torch.hypot((x - centre[0]) / 0.85, y - centre[1]) / (size / 2)
    mask = ((1.25 - d) / 0.25).clamp(0, 1)
    kind = rng.random()
    if kind < 0.4:
        other = F.interpolate(F.avg_pool2d(picture[None], SIDE // 4), size=(SIDE, SIDE), mode="bilinear")[0]
        other = other + 0.05 * torch.randn(1, generator=torch.Generator().manual_seed(int(rng.integers(2**31))))
    elif kind < 0.7:
        other = picture.roll((SIDE // 2, int(rng.integers(SIDE))), (1, 2))
    else:
        other = shuffled(picture, rng)
    return torch.lerp(picture, other, mask.expand_as(picture)).clamp(0, 1)


def painted(picture: Tensor, rng: Generator) -> Tensor:
    """A photograph as if drawn: flat colours, dark lines, strong tones."""
    k = int(rng.choice([3, 5, 7]))
    smooth = F.avg_pool2d(picture[None], k, 1, k // 2, count_include_pad=False)[0]
    levels = float(rng.integers(4, 10))
    flat = (smooth * levels).round() / levels
    grey = smooth.mean(0)
    edges = F.pad((grey[:, 1:] - grey[:, :-1]).abs(), (0, 1)) + F.pad((grey[1:] - grey[:-1]).abs(), (0, 0, 0, 1))
    lines = ((edges - 0.05) * float(rng.uniform(0, 12))).clamp(0, 1)
    mean = flat.mean(0, keepdim=True)
    return ((mean + (flat - mean) * float(rng.uniform(0.0, 2.2))) * (1 - lines)).clamp(0, 1)
