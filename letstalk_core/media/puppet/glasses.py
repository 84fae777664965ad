"""Drawn glasses: rims of several shapes, a bridge, temples, lenses with a tint and a glare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .fields import Head
from .geometry import EXTENT, axis_grid, smooth_step
from .topology import EYES

COLOURS = (
    *((0.06, 0.06, 0.07), (0.10, 0.08, 0.07), (0.22, 0.12, 0.06), (0.36, 0.20, 0.10), (0.55, 0.45, 0.30)),
    *((0.45, 0.46, 0.48), (0.12, 0.16, 0.30), (0.35, 0.08, 0.10)),
)


@dataclass(frozen=True)
class Glasses:
    """Sizes in distances between the eyes."""

    width: float  # half of a lens
    height: float
    squareness: float  # 2 is an ellipse
    rim: float  # thickness
    lower_rim: float  # 0: rimless below
    colour: tuple[float, float, float]
    tint: float
    glare: float


def sample_glasses(rng: np.random.Generator, *, grey: bool) -> Glasses:
    """Glasses as people wear them; sunglasses are none of them."""
    colour = COLOURS[int(rng.integers(len(COLOURS)))]
    if grey:
        colour = (sum(colour) / 3,) * 3
    width = rng.uniform(0.36, 0.43)
    return Glasses(
        width=float(width),
        height=float(width * rng.uniform(0.62, 0.98)),
        squareness=float(rng.uniform(2.0, 4.5)),
        rim=float(rng.choice((0.022, 0.035, 0.055, 0.075))),
        lower_rim=float(rng.random() > 0.15),
        colour=colour,
        tint=float(rng.uniform(0.02, 0.14)),
        glare=float(rng.uniform(0.05, 0.35) if rng.random() < 0.5 else 0.0),
    )


def draw_glasses(head: Head, glasses: list[Glasses | None], size: int, light: Tensor) -> Tensor:
    """Colour and cover (b, 4, T, T) in the portraits' plane, no cover for those without; light (b, 3) of white."""
    device = head.points.device
    u, v = head.plane(axis_grid(size, EXTENT, device)).unbind(-1)
    q = head.local(head.points)
    out = u.new_zeros(len(glasses), 4, size, size)
    for i, style in enumerate(glasses):
        if style is not None:
            out[i] = _pair(u[i], v[i], q[i], float(head.half[i, 0]), style, light[i])
    return out


def _pair(u: Tensor, v: Tensor, q: Tensor, half_face: float, style: Glasses, light: Tensor) -> Tensor:
    centres = [q[list(e.corners), :2].mean(0) for e in EYES]
    apart = float((centres[1] - centres[0]).norm())
    pixel = 2 * EXTENT / u.shape[-1]
    a, b, rim = style.width * apart, style.height * apart, style.rim * apart
    middle = (centres[0] + centres[1]) / 2
    cover, inside = torch.zeros_like(u), torch.zeros_like(u)
    for centre in centres:
        x, y = (u - centre[0]) / a, (v - centre[1] - 0.05 * apart) / b
        r = (x.abs().clamp(min=1e-3) ** style.squareness + y.abs().clamp(min=1e-3) ** style.squareness) ** (
            1 / style.squareness
        )
        distance = (r - 1) * b
        ring = smooth_step(0.5 * rim + pixel, 0.5 * rim - pixel, distance.abs())
        ring = ring * torch.where(y > 0.2, style.lower_rim, 1.0)
        cover = torch.maximum(cover, ring)
        inside = torch.maximum(inside, smooth_step(pixel, -pixel, distance))
    x, y = (u - middle[0]).abs(), v - middle[1]
    inner = 0.5 * apart - a
    arch = -0.02 * apart - 0.05 * apart * (1 - (x / max(inner, 1e-3)).clamp(0, 1) ** 2)
    line = 0.45 * rim + 0.004
    bridge = smooth_step(line + pixel, line - pixel, (y - arch).abs()) * smooth_step(inner + pixel, inner, x)
    outer = 0.5 * apart + a
    temple = smooth_step(line + pixel, line - pixel, (y + 0.08 * apart - 0.10 * (x - outer)).abs())
    temple = temple * smooth_step(outer - pixel, outer + pixel, x) * smooth_step(half_face, 0.97 * half_face, x)
    cover = torch.maximum(cover, torch.maximum(bridge, temple))
    stripe = torch.exp(-(((((u - middle[0]) * 0.8 + (v - middle[1]) * 0.6) / (0.10 * apart)) % 4.0 - 2) ** 2))
    lens = inside * (style.tint + style.glare * stripe * smooth_step(0.6 * b, -b, y))
    tone = torch.tensor(style.colour, device=u.device) * (0.25 + light.mean())
    shine = light * (0.35 + 0.6 * (style.glare > 0))
    alpha = torch.maximum(cover, lens)
    share = cover / alpha.clamp(min=1e-4)
    colour = tone[:, None, None] * share + shine[:, None, None] * (1 - share)
    return torch.cat([colour, alpha[None]])
