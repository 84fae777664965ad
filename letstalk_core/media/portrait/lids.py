"""A portrait's upper lids, drawn down: its own skin between brow and lashes, stretched over the eye.

A portrait shows no shut lids, and a network that has seen few faces leaves eyes half open in a blink. What a lid
that comes down looks like is plain geometry, though: every place between the brow and the lid's edge moves down in
proportion to its way from the brow, and the lashes come with the edge.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.face_points import BROWS, EYES

__all__ = ["Lids"]

CORNERS, UPPER, LOWER = slice(0, 2), slice(2, 9), slice(9, 16)  # of an eye's list
BROW = slice(5, 10)  # the lower edge of a brow's list
CLOSED = 0.96  # of the way between the lids, at a blink of 1
LASHES = 0.030  # how far the lid's edge reaches down over the eye, and the depth of its shade, in eye widths
SHADE = 0.35  # darker along the edge of a lid that is shut
ENDS = (0.52, 0.64)  # from the middle of an eye, in its widths: all of the lid, nothing
STEPS = 16  # amounts between open and shut
DEGREE = 4  # of the polynomials that the lids' edges are taken for


class Lids:
    """Layers of a portrait (1, 3, h, w) in [-1, 1] with its lids down; points (478, 2 or 3) in its pixels."""

    def __init__(self, portrait: Tensor, points: Tensor) -> None:
        self.portrait = portrait.float()
        self.points = points[:, :2].double().to("cpu")
        self._layers: dict[int, Tensor] = {}

    def __call__(self, amount: float) -> Tensor | None:
        """Picture and cover (1, 4, h, w): 0 open, 1 shut; None where there is nothing to draw."""
        step = round(min(max(amount, 0.0), 1.0) * STEPS) if math.isfinite(amount) else 0
        if step == 0:
            return None
        if step not in self._layers:
            self._layers[step] = self._draw(step / STEPS)
        return self._layers[step]

    def _draw(self, amount: float) -> Tensor:
        height, width = self.portrait.shape[-2:]
        layer = torch.cat([self.portrait, torch.zeros_like(self.portrait[:, :1])], dim=1)
        for eye, brow in zip(EYES, BROWS, strict=True):
            lid = _Lid(self.points[list(eye)], self.points[list(brow)][BROW])
            x0, y0, x1, y1 = lid.box(width, height)
            if x1 - x0 < 2 or y1 - y0 < 2:
                continue
            colours, cover = lid.draw(self.portrait, (x0, y0, x1, y1), amount)
            part = layer[:, :, y0:y1, x0:x1]
            part[:, :3] = torch.lerp(part[:, :3], colours, (cover > 0).to(cover.dtype))
            part[:, 3:] = torch.maximum(part[:, 3:], cover)
        return layer


class _Lid:
    """One eye, in axes of its own: u along the eye to the right, v down, in pixels from its middle."""

    def __init__(self, eye: Tensor, brow: Tensor) -> None:
        corners = eye[CORNERS]
        left, right = corners[corners[:, 0].argsort()]
        self.middle, across = (left + right) / 2, right - left
        self.width = max(1.0, float(across.norm()))
        self.axis = across / self.width
        self.upper = self._edge(torch.cat([corners, eye[UPPER]]))
        self.lower = self._edge(torch.cat([corners, eye[LOWER]]))
        self.brow = float(self._own(brow)[:, 1].mean())
        self.reach = torch.cat([corners, eye[UPPER], eye[LOWER], brow])

    def _own(self, places: Tensor) -> Tensor:
        x, y = (places - self.middle).unbind(-1)
        cos, sin = self.axis.tolist()
        return torch.stack([x * cos + y * sin, y * cos - x * sin], -1)

    def _edge(self, places: Tensor) -> Tensor:
        """Coefficients of the edge's height over u / width: smooth, whatever the noise of single points."""
        own = self._own(places) / self.width
        powers = own[:, :1] ** torch.arange(DEGREE + 1)
        found: Tensor = torch.linalg.lstsq(powers, own[:, 1:]).solution[:, 0]
        return found

    def _height(self, edge: Tensor, u: Tensor) -> Tensor:
        x = (u / self.width).clamp(-0.5, 0.5)
        height = torch.zeros_like(x)
        for coefficient in reversed(edge.tolist()):
            height = height * x + coefficient
        return self.width * height

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of the pixels that may change."""
        low = (self.reach.amin(0) - 0.2 * self.width).floor().long().tolist()
        high = (self.reach.amax(0) + 0.2 * self.width).ceil().long().tolist()
        return max(0, low[0]), max(0, low[1]), min(width, high[0]), min(height, high[1])

    def draw(self, portrait: Tensor, box: tuple[int, int, int, int], amount: float) -> tuple[Tensor, Tensor]:
        """Colours (1, 3, h, w) and cover (1, 1, h, w) of a box of the portrait."""
        x0, y0, x1, y1 = box
        device = portrait.device
        y, x = torch.meshgrid(
            torch.arange(y0, y1, device=device) + 0.5, torch.arange(x0, x1, device=device) + 0.5, indexing="ij"
        )
        (cos, sin), (mx, my) = self.axis.tolist(), self.middle.tolist()
        u, v = (x - mx) * cos + (y - my) * sin, (y - my) * cos - (x - mx) * sin
        upper, lower = self._height(self.upper, u), self._height(self.lower, u)
        drop = amount * CLOSED * (lower - upper).clamp(min=0)
        top = torch.minimum(upper - 0.15 * self.width, torch.full_like(u, self.brow))  # where skin stays
        edge = upper + drop
        # Between brow and edge the skin is stretched; beyond the edge, lashes and all, it comes along as it is.
        within = top + (v - top) / (1 + drop / (upper - top))
        source = torch.where(v > edge, v - drop, torch.where(v > top, within, v))
        px, py = mx + u * cos - source * sin, my + u * sin + source * cos
        height, width = portrait.shape[-2:]
        grid = torch.stack([px * (2 / width) - 1, py * (2 / height) - 1], -1)[None]
        skin = F.grid_sample(portrait, grid.to(portrait.dtype), align_corners=False, padding_mode="border")
        deep = LASHES * self.width
        shade = torch.exp(-(((v - edge - 0.5 * deep) / deep) ** 2)) * (SHADE * amount)
        skin = (skin + 1) * (1 - shade) - 1
        soft = max(0.5, 0.012 * self.width)  # pixels
        lid = torch.sigmoid((edge + deep - v) / soft)
        colours = torch.lerp(portrait[:, :, y0:y1, x0:x1], skin, lid.to(skin.dtype))
        # The layer also shows the eye below the lid as the portrait has it, for what it lies on may be blurred.
        ends = _step((ENDS[1] - u.abs() / self.width) / (ENDS[1] - ENDS[0]))
        above = _step((v - top) / (0.5 * (upper - top)))
        below = _step((lower + 0.16 * self.width - v) / (0.12 * self.width))
        return colours, (ends * above * below * min(1.0, 4 * amount))[None, None].to(skin.dtype)


def _step(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
