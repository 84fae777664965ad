"""Layers of colour under soft masks, and the numbers of a batch of people as columns."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from letstalk_core.networks.motion_channels import MOTION

from .identity import Identity

JAW_DROP = 0.10  # how far the chin goes down at jaw = 1


class Params:
    """Parameters of the people (n or 1, 1, 1), colours (n or 1, 3, 1, 1) and motion (n, 1, 1) as tensors."""

    def __init__(self, people: list[Identity], moves: Tensor) -> None:
        for field in fields(Identity):
            values = [getattr(person, field.name) for person in people]
            if isinstance(values[0], tuple):
                tensor = torch.tensor(values, dtype=torch.float32, device=moves.device)[:, :, None, None]
                setattr(self, field.name, tensor)
            elif isinstance(values[0], float):
                tensor = torch.tensor(values, dtype=torch.float32, device=moves.device)[:, None, None]
                setattr(self, field.name, tensor)
            else:
                setattr(self, field.name, values[0])
        for i, name in enumerate(MOTION):
            setattr(self, name, moves[:, i, None, None])

    def __getattr__(self, name: str) -> Any:  # every attribute is set above; this tells the type checker so
        raise AttributeError(name)


def smooth(a: Any, b: Any, x: Tensor) -> Tensor:
    """0 at and below a, 1 at and above b, smooth between (a > b turns it round)."""
    t = ((x - a) / (b - a)).clamp_(0, 1)
    return t * t * (3 - 2 * t)


def bump(x: Tensor) -> Tensor:
    """A bell of x squared: 1 at 0, about 0 from x = 1."""
    return torch.exp(x * -4.0)


def ellipse(x: Tensor, y: Tensor, a: Any, b: Any) -> Tensor:
    """Approximate signed distance to an ellipse of half axes a, b."""
    xa, yb = x / a, y / b
    k = torch.sqrt(xa * xa + yb * yb + 1e-9)
    return k * (k - 1) / torch.sqrt((xa / a) ** 2 + (yb / b) ** 2 + 1e-9)


class Canvas:
    """A picture being painted, band by band of rows."""

    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.size = image.shape[-1]
        self.pixel = 2.0 / self.size

    def band(self, top: float, bottom: float) -> slice:
        """Rows between two heights of the picture (-1..1)."""
        return slice(max(0, int((top + 1) / 2 * self.size)), min(self.size, int((bottom + 1) / 2 * self.size)))

    def cover(self, distance: Tensor, softness: float = 1.3) -> Tensor:
        """How much of each pixel lies inside a shape, from its signed distance; `softness` in pixels."""
        return (0.5 - distance * (1 / (self.pixel * softness))).clamp_(0, 1)

    def paint(self, color: Tensor, alpha: Tensor, rows: slice | None = None) -> None:
        target = self.image if rows is None else self.image[:, :, rows]
        target.lerp_(color.expand_as(target), alpha.unsqueeze(1))


def jaw_stretch(p: Params, v: Tensor) -> Tensor:
    return v - JAW_DROP * p.jaw * smooth(0.15, 0.60, v)


def head_distance(p: Params, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to the outline of the head: an ellipse above, tapering to the chin below."""
    t = jaw_stretch(p, v) / p.face_height
    half = p.face_width * (1 - p.jaw_taper * smooth(0.10, 1.15, t))
    ratio = u / half
    return (torch.sqrt(ratio * ratio + t * t + 1e-9) - 1) * 0.52
