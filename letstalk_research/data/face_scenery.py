"""What is behind and before faces: textures, shuffled pieces and painted heads; spectacles, masks and hands."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from letstalk_core.media.portrait.face_geometry import upright_square
from letstalk_core.networks.face_points import EYES, LIPS

from .face_heads import SIDE


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


def cover(picture: Tensor, points: Tensor, rng: Generator) -> tuple[Tensor, float, float]:
    """A picture (3, s, s) in 0..1 with something before the face of `points` (478, 3) in pixels.

    Returns it with 1 or 0 for hidden eyes and for a hidden mouth.
    """
    kind = rng.random()
    right, left = points[list(EYES[0]), :2].mean(0), points[list(EYES[1]), :2].mean(0)
    mouth = points[list(LIPS), :2].mean(0)
    unit = float((left - right).norm())
    if unit < 4 or kind < 0.12:
        return picture, 0.0, 0.0
    across = (left - right) / unit
    if kind < 0.32:
        return _spectacles(picture, right, left, unit, across, rng, dark=False), 0.0, 0.0
    if kind < 0.6:
        return _spectacles(picture, right, left, unit, across, rng, dark=True), 1.0, 0.0
    if kind < 0.75:
        return _mask(picture, points, mouth, unit, across, rng), 0.0, 1.0
    target, hidden = (mouth, (0.0, 1.0)) if rng.random() < 0.6 else ((right + left) / 2, (1.0, 0.0))
    return _hand(picture, points, target, unit, rng), *hidden


def _grid(picture: Tensor, centre: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates along and down the face, from `centre`, in pixels."""
    axis = torch.arange(picture.shape[-1]) + 0.5
    y, x = torch.meshgrid(axis - centre[1], axis - centre[0], indexing="ij")
    return x * across[0] + y * across[1], y * across[0] - x * across[1]


def _painted(picture: Tensor, colour: Tensor, mask: Tensor) -> Tensor:
    return torch.lerp(picture, colour.expand_as(picture), mask.clamp(0, 1).expand_as(picture))


def _colour(rng: Generator, low: float, high: float) -> Tensor:
    level = rng.uniform(low, high)
    return torch.tensor(level * np.exp(rng.normal(0, 0.15, 3)), dtype=torch.float32).clamp(0, 1).view(3, 1, 1)


def _spectacles(
    picture: Tensor, right: Tensor, left: Tensor, unit: float, across: Tensor, rng: Generator, *, dark: bool
) -> Tensor:
    wide, high = unit * rng.uniform(0.36, 0.48), unit * rng.uniform(0.24, 0.42)
    power = float(rng.choice([2.0, 2.5, 5.0]))
    frame, glass = _colour(rng, 0.0, 0.5), _colour(rng, 0.0, 0.22)
    rim = unit * rng.uniform(0.015, 0.06)
    drop = unit * rng.uniform(-0.02, 0.10)
    shine = float(rng.uniform(0, 0.5)) if rng.random() < 0.5 else 0.0
    opacity = float(rng.uniform(0.88, 1.0)) if dark else float(rng.uniform(0, 0.12))
    for eye in (right, left):
        u, v = _grid(picture, eye, across)
        v = v - drop
        d = ((u / wide).abs() ** power + (v / high).abs() ** power) ** (1 / power)
        tone = glass + shine * (0.5 - (v + u * 0.5) / (2 * high)).clamp(0, 1) if dark else glass + 0.6
        picture = _painted(picture, tone.clamp(0, 1), opacity * (1 - d) * 8)
        edge = ((d - 1).abs() * min(wide, high) - rim / 2) / 0.7
        picture = _painted(picture, frame, 0.5 - edge)
    u, v = _grid(picture, (right + left) / 2, across)
    bridge = torch.maximum(u.abs() - (unit / 2 - wide), (v - drop + 0.1 * high).abs() - rim / 2)
    picture = _painted(picture, frame, 0.5 - bridge)
    arms = torch.maximum((u.abs() - unit * 0.85).abs() - (unit * 0.85 - wide * 0.9), (v - drop).abs() - rim / 2)
    arms = torch.where(u.abs() > unit / 2 + wide, arms, torch.full_like(arms, 9.0))
    return _painted(picture, frame, 0.5 - arms)


def _mask(picture: Tensor, points: Tensor, mouth: Tensor, unit: float, across: Tensor, rng: Generator) -> Tensor:
    """A cloth from the nose to below the chin."""
    u, v = _grid(picture, mouth, across)
    top = unit * rng.uniform(0.35, 0.75)
    wide, down = unit * rng.uniform(0.85, 1.15), unit * rng.uniform(0.65, 1.0)
    rise = 0.25 * (u / wide) ** 2 * unit
    shape = torch.maximum((u / wide).abs() ** 3 + (v / down).clamp(min=0) ** 3 - 1, -(v + top - rise) / unit)
    tone = _colour(rng, 0.1, 1.0) * (1 - 0.15 * torch.cos(v / unit * rng.uniform(2, 16)))
    return _painted(picture, tone.clamp(0, 1), -shape * unit / 2)


def _hand(picture: Tensor, points: Tensor, target: Tensor, unit: float, rng: Generator) -> Tensor:
    """Some fingers and a palm, of the colour of the cheeks or of another skin."""
    cheek = points[[50, 280], :2].mean(0)
    x, y = (int(v) for v in cheek.clamp(3, picture.shape[-1] - 4))
    skin = picture[:, y - 3 : y + 4, x - 3 : x + 4].mean((1, 2)).view(3, 1, 1)
    if rng.random() < 0.3:
        skin = _colour(rng, 0.2, 0.8) * torch.tensor([1.15, 0.95, 0.8]).view(3, 1, 1)
    angle = rng.uniform(0, 2 * math.pi)
    along = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float32)
    u, v = _grid(picture, target, along)
    width, length = unit * rng.uniform(0.11, 0.16), unit * rng.uniform(0.5, 0.9)
    fingers = int(rng.integers(3, 5))
    for k in range(fingers):
        off = (k - (fingers - 1) / 2) * width * 2.0
        reach = length * float(rng.uniform(0.8, 1.0))
        d = torch.hypot((u - u.clamp(-reach, 2.5 * unit)), v - off)
        shade = 0.72 + 0.38 * (1 - (d / width).clamp(0, 1) ** 2)
        picture = _painted(picture, (skin * shade).clamp(0, 1), (width - d) / 1.2)
    palm = torch.hypot((u - 1.6 * unit) / 1.1, v) - unit * 0.62
    return _painted(picture, (skin * 0.95).clamp(0, 1), -palm / 2)
