"""Small tools of plane geometry on tensors, each batched over people.

Pictures are tensors over a square of the plane, -EXTENT..EXTENT for what belongs to a portrait (its texture, its
displacement fields) and -1..1 for the frame itself: x to the right, y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EXTENT = 1.2  # half the side of a texture, in halves of a frame: a moved head brings in what was outside


def smooth_step(a: Tensor | float, b: Tensor | float, x: Tensor) -> Tensor:
    """0 at and beyond a, 1 at and beyond b, smooth between; a > b turns it round."""
    t = ((x - a) / (b - a)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def axis_grid(size: int, extent: float, device: torch.device | None = None) -> Tensor:
    """x, y of the pixel centres of a square picture over -extent..extent: (size, size, 2)."""
    axis = ((torch.arange(size, device=device) + 0.5) / size * 2 - 1) * extent
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)


class RadialBasis:
    """Smooth interpolation of scattered values in the plane: kernel |r| and a constant, exact up to `ridge`.

    Shapes: points (b, k, 2), values (b, k, c).
    """

    def __init__(self, points: Tensor, values: Tensor, ridge: float = 1e-3) -> None:
        b, k, _ = points.shape
        p = points.double()
        system = p.new_zeros(b, k + 1, k + 1)
        system[:, :k, :k] = torch.cdist(p, p) - ridge * torch.eye(k, dtype=p.dtype, device=p.device)
        system[:, :k, k] = system[:, k, :k] = 1
        right = torch.cat([values.double(), p.new_zeros(b, 1, values.shape[2])], 1)
        self.points = points.float()
        self.weights = torch.linalg.solve(system, right).float()

    @staticmethod
    def kernel(points: Tensor, where: Tensor) -> Tensor:
        """Distances (b, n, k + 1), the last column the constant. where: (n, 2) or (b, n, 2)."""
        q = where.expand(len(points), -1, -1)
        square = torch.baddbmm(
            (q * q).sum(-1, keepdim=True) + (points * points).sum(-1)[:, None], q, points.transpose(1, 2), alpha=-2
        )
        distance = square.clamp_(min=1e-9).sqrt_()
        return F.pad(distance, (0, 1), value=1.0)

    def __call__(self, where: Tensor) -> Tensor:
        """Values at places (n, 2) or (b, n, 2): (b, n, c)."""
        return torch.bmm(self.kernel(self.points, where), self.weights)


def curve_height(knots: Tensor, x: Tensor) -> Tensor:
    """Height of a polyline, level beyond its ends.

    Shapes: knots (b, k, 2) with x ascending or not, x (b, ...) -> like x.
    """
    order = knots[..., 0].argsort(1)
    kx, ky = knots[..., 0].gather(1, order), knots[..., 1].gather(1, order)
    flat = x.reshape(len(x), -1).contiguous()
    right = torch.searchsorted(kx.contiguous(), flat).clamp(1, kx.shape[1] - 1)
    x0, x1, y0, y1 = kx.gather(1, right - 1), kx.gather(1, right), ky.gather(1, right - 1), ky.gather(1, right)
    t = ((flat - x0) / (x1 - x0).clamp(min=1e-6)).clamp(0, 1)
    return torch.lerp(y0, y1, t).reshape(x.shape)


def sample(image: Tensor, at: Tensor, *, padding: str = "border") -> Tensor:
    """A portrait's picture (b, c, h, w) at places (b, n, m, 2) of the plane: (b, c, n, m)."""
    return F.grid_sample(image, at / EXTENT, align_corners=False, padding_mode=padding)


def sample_frames(image: Tensor, at: Tensor) -> Tensor:
    """One picture a person, many frames of places: (b, c, h, w), (b, t, n, m, 2) -> (b, c, t, n, m)."""
    b, t, n, m, _ = at.shape
    return sample(image, at.reshape(b, t * n, m, 2)).reshape(b, image.shape[1], t, n, m)


def invert(field: Tensor, at: Tensor, *, steps: int = 5, pace: float = 1.0) -> Tensor:
    """Sources s with s + field(s) = at, by fixed point; `pace` < 1 where the field stretches to the double.

    Shapes: field (b, t, 2, g, g), at (b, t, n, m, 2) -> like at.
    """
    b, t, n, m, _ = at.shape
    flat = field.reshape(b * t, 2, *field.shape[3:])
    goal = at.reshape(b * t, n, m, 2)
    s = goal
    for _ in range(steps):
        s = torch.lerp(s, goal - sample(flat, s).permute(0, 2, 3, 1), pace)
    return s.reshape(at.shape)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian of `sigma` pixels; a wide one is computed on a smaller picture. (b, c, h, w)."""
    k = max(1, round(sigma / 3))
    small = F.avg_pool2d(image, k, ceil_mode=True, count_include_pad=False) if k > 1 else image
    radius = max(1, int(3 * sigma / k + 0.5))
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    g = torch.exp(-0.5 * (x * k / sigma) ** 2)
    g = (g / g.sum()).view(1, 1, 1, -1)
    c = image.shape[1]
    small = F.pad(small, (radius, radius, radius, radius), mode="replicate")
    small = F.conv2d(small, g.expand(c, 1, 1, -1), groups=c)
    small = F.conv2d(small, g.transpose(2, 3).expand(c, 1, -1, 1), groups=c)
    return F.interpolate(small, size=image.shape[-2:], mode="bilinear") if k > 1 else small


def grow(image: Tensor, known: Tensor) -> Tensor:
    """Fill what is not known by averages of what is, nearest first, from coarse to fine (pull-push).

    Shapes: image (b, c, h, w), known (b, 1, h, w) in 0..1. Pictures without anything known become grey.
    """
    height, width = image.shape[-2:]
    if min(height, width) <= 2:
        total = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1e-6)
        return torch.where(known.sum((2, 3), keepdim=True) > 1e-6, total, 0.5 * torch.ones_like(total)).expand_as(
            image
        )
    pad = (0, width % 2, 0, height % 2)
    w = F.avg_pool2d(F.pad(known, pad), 2)
    half = F.avg_pool2d(F.pad(image * known, pad), 2) / w.clamp(min=1e-6)
    coarse = grow(half, (w * 2).clamp(max=1))
    filled = F.interpolate(coarse, scale_factor=2, mode="bilinear")[..., :height, :width]
    return torch.lerp(filled, image, known)
