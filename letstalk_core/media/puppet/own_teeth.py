"""The teeth that a portrait shows between its lips: where they are, and their picture for a mouth that moves.

Landmarks of smiling lips often lie on the teeth, so the lips' edges are looked for in the picture: teeth are less
red than lips and skin. Across the mouth every column is cut into lip, teeth, lip where that fits best; a smooth
line through the cuts is an edge. Numbers were set on 250 stills: what shines on closed lips is told from teeth by
the gaps between teeth, among others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.face_points import LOWER_INNER, UPPER_INNER
from .fields import Head
from .geometry import curve_height, sample, smooth_step
from .topology import CORNERS, LOWER_LIP, UPPER_LIP

COLUMNS, ROWS = 69, 64  # of the strip between the lips' outer edges
BELOW = 1.25  # the strip's lower end: outer landmarks of smiles lie on the lip
THINNEST = 0.10  # of a lip in mouth widths
SMOOTH = 5  # columns
TALL = 0.16  # of the picture's teeth under the upper lip, in mouth widths


@dataclass
class OwnTeeth:
    """shown (b,): whether the portrait shows its teeth; top, bottom (b, k, 2): their edges in the head's plane;
    colour (b, 3) of the brighter ones."""

    shown: Tensor
    top: Tensor
    bottom: Tensor
    colour: Tensor


def find_teeth(head: Head, texture: Tensor) -> OwnTeeth:
    """Look between the lips of portraits, texture (b, 3, T, T)."""
    q, width = head.local(head.points)[..., :2], head.mouth_width[:, None]
    x = torch.linspace(-1, 1, COLUMNS, device=texture.device)
    u = x * width / 2

    def line(ids: tuple[int, ...]) -> Tensor:
        return curve_height(q[:, list(ids)], u)

    high, low = (line((CORNERS[0], *lip[0], CORNERS[4])) for lip in (UPPER_LIP, LOWER_LIP))
    tall = (low - high).clamp(min=1e-3)
    middle = (line(UPPER_INNER) + line(LOWER_INNER)) / 2
    rows = torch.linspace(0, BELOW, ROWS, device=texture.device)
    at = torch.stack([u[..., None].expand(-1, -1, ROWS), high[..., None] + tall[..., None] * rows], -1)
    colours = sample(texture, _places(head, at)).clamp(min=2 / 255)
    strip = _Strip(colours, x, rows, (middle - high) / tall)
    top, bottom, weight = strip.cuts()
    edges = []
    for cut, ids in ((top, UPPER_INNER), (bottom, LOWER_INNER)):
        found, rest = (cut * tall + high - middle) / width, (line(ids) - middle) / width
        edge = _smooth_line(x, found, rest, weight)
        sure = weight * torch.exp(-(((found - edge) / 0.03) ** 2))
        edges.append((_smooth_line(x, found, rest, sure) * width + middle, sure))
    (upper, a), (lower, b) = edges
    lower = torch.maximum(lower, upper + 0.01 * width * (1 - x**2))
    inner = ((upper - high) / tall, (lower - high) / tall)
    shown = strip.are_teeth(*inner, torch.minimum(a, b)) & ((lower - upper).amax(1) > 0.035 * width[:, 0])
    knots = [torch.stack([u, edge], -1) for edge in (upper, lower)]
    return OwnTeeth(shown, knots[0], knots[1], strip.colour)


class _Strip:
    """Colours (b, 3, k, r) from the upper lip down to the lower one in columns x (k,), at `rows` (r,) of its
    height; middle (b, k): the row where lips would meet."""

    def __init__(self, colours: Tensor, x: Tensor, rows: Tensor, middle: Tensor) -> None:
        self.colours, self.x, self.rows, self.middle = colours, x, rows, middle
        logs = colours.log()
        self.red = 1.5 * logs[:, 0] - 2 * logs[:, 1] + 0.5 * logs[:, 2]
        self.light = colours.mean(1)
        self.off = rows - middle[..., None]
        central = (x.abs() < 0.6)[:, None].expand_as(self.off)
        near = central & (self.off.abs() < 0.28)
        above, under = (
            central & (rows > 0.12) & (rows < 0.55 * middle[..., None]),
            central & (rows > 0.98) & (rows < 1.15),
        )
        upper_lip, lower_lip = _quantile(self.red, above, 0.6), _quantile(self.red, under, 0.5)
        bright = near & (self.light >= _quantile(self.light, near, 0.6)[:, None, None])
        self.tooth = _quantile(self.red, bright, 0.12)
        white = near & (self.red < self.tooth[:, None, None] + 0.06)
        self.shine = _quantile(self.light, white, 0.6)
        self.lip_light = _quantile(self.light, above, 0.5)
        self.contrast = torch.minimum(upper_lip, lower_lip) - self.tooth
        self.limits = tuple(self.tooth + 0.5 * (lip - self.tooth) for lip in (upper_lip, lower_lip))
        brightest = (white & (self.light >= self.shine[:, None, None])).float()[:, None]
        self.colour = (colours * brightest).sum((2, 3)) / brightest.sum((2, 3)).clamp(min=1)

    def cuts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (b, k) where teeth begin and end, and how sure that is, 0..1."""
        high, low = (t[:, None, None] for t in self.limits)
        limit = torch.where(self.off < 0, high, low).nan_to_num()
        score = ((limit - self.red) / (0.5 * self.contrast).clamp(min=0.05)[:, None, None]).clamp(-1, 1)
        score = torch.where(self.light < 0.3 * self.shine[:, None, None], -1.0, score)
        score = _smooth_columns(score, SMOOTH) - 2 * (self.off.abs() - 0.12).clamp(min=0)
        total = F.pad(score.cumsum(-1), (1, 0)) * (BELOW / len(self.rows))
        spans = total[:, :, None] - total[..., None]  # from row i to row j
        after = torch.ones(spans.shape[-2:], dtype=torch.bool, device=spans.device).triu()
        best, which = torch.where(after, spans, -9.0).flatten(2).max(-1)
        step, count = BELOW / len(self.rows), len(self.rows) + 1
        # Of the strip's height about 0.3 mouth widths
        weight = (best / 0.09).clamp(0, 1) * (best > 0.025)
        return (which // count) * step, (which % count) * step, weight

    def are_teeth(self, top: Tensor, bottom: Tensor, sure: Tensor) -> Tensor:
        """Whether what lies between rows `top` and `bottom` (b, k) are teeth (b,)."""
        core = (self.x.abs() < 0.5).float()
        inside = ((self.rows > top[..., None]) & (self.rows < bottom[..., None])).float()
        profile = (self.light * inside).sum(-1) / inside.sum(-1).clamp(min=1)
        smooth = _smooth_columns(profile[..., None], 9)[..., 0]
        ripple = (profile - smooth) / smooth.clamp(min=0.02)
        gaps = ((ripple**2 * core).sum(1) / core.sum()).sqrt().clamp(max=0.1)
        away = ((((top + bottom) / 2 - self.middle) * core).sum(1) / core.sum() - 0.1).clamp(min=0)
        ratio = self.shine / self.lip_light
        score = 31 * gaps + 8 * self.contrast.clamp(max=0.8) - 3 * away - 14 * self.tooth - 2.4 * ratio.log()
        share = ((sure > 0.3).float() * core).sum(1) / core.sum()
        return (score > -0.1) & (share > 0.55) & (self.contrast > 0.21) & (ratio > 1.1)


def lips_at(head: Head, teeth: OwnTeeth) -> Tensor:
    """The head's points (b, 478, 3), with the lips' rings where they end at the teeth that are shown."""
    q, width = head.local(head.points), head.mouth_width[:, None]
    moved = q.clone()
    for lip, edge, sign in ((UPPER_LIP, teeth.top, -1.0), (LOWER_LIP, teeth.bottom, 1.0)):
        outer, inner = (q[:, list(lip[r])] for r in (0, 3))
        arc = (1 - (inner[..., 0] / (width / 2)) ** 2).clamp(0, 1)
        goal = curve_height(edge, inner[..., 0])
        step = goal - inner[..., 1]
        least = curve_height(edge, outer[..., 0]) + sign * THINNEST * width * arc
        out = torch.maximum(sign * outer[..., 1], sign * least) * sign - outer[..., 1]
        for r, ring in enumerate(lip):
            moved[:, list(ring), 1] += torch.lerp(out, step, r / 3)
    found = moved @ head.axes + head.mouth[:, None]
    return torch.where(teeth.shown[:, None, None], found, head.points)


def teeth_layer(head: Head, texture: Tensor, teeth: OwnTeeth, u: Tensor, v: Tensor, shade: Tensor) -> Tensor:
    """Colour and cover (b, 4, h, w) of the teeth at places u, v (b, h, w) of the head's plane, without the `shade`
    (b, h, w) that the lips throw. Under the upper lip teeth go on as they begin."""
    width = head.mouth_width[:, None, None]
    pixel = 2.4 / texture.shape[-1]
    top, bottom = curve_height(teeth.top, u), curve_height(teeth.bottom, u)
    inner = torch.minimum(top + 1.5 * pixel, (top + bottom) / 2), torch.maximum(bottom - pixel, (top + bottom) / 2)
    within = torch.stack([u, torch.minimum(torch.maximum(v, inner[0]), inner[1])], -1)
    colour = sample(texture, _places(head, within))
    colour = colour / (1 - sample(shade[:, None], _places(head, within)))
    cover = smooth_step(0.9 * pixel, -0.9 * pixel, v - bottom) * smooth_step(-TALL, 0.04 - TALL, (v - top) / width)
    cover = cover * smooth_step(0.98, 0.90, (u / (width / 2)).abs()) * teeth.shown[:, None, None]
    return torch.cat([colour.clamp(0, 1), cover[:, None]], 1)


def _places(head: Head, local: Tensor) -> Tensor:
    """Places (b, n, m, 2) of the head's plane as places of the picture."""
    return head.mouth[:, None, None, :2] + local @ head.axes[:, None, :2, :2]


def _quantile(values: Tensor, where: Tensor, q: float) -> Tensor:
    return torch.where(where, values, float("nan")).flatten(1).nanquantile(q, 1)


def _smooth_columns(x: Tensor, count: int) -> Tensor:
    """(b, k, n) averaged over some columns."""
    kernel = torch.hann_window(count + 2, periodic=False, device=x.device)[1:-1]
    rows = x.transpose(1, 2).reshape(-1, 1, x.shape[1])
    rows = F.conv1d(
        F.pad(rows, (count // 2, count // 2), mode="replicate"), (kernel / kernel.sum()).view(1, 1, -1)
    )
    return rows.reshape(x.shape[0], x.shape[2], -1).transpose(1, 2)


def _smooth_line(x: Tensor, found: Tensor, rest: Tensor, weight: Tensor) -> Tensor:
    """A line of five numbers that ends at the corners, through `found` (b, k); where nothing was, near `rest`."""
    powers = torch.arange(5, device=x.device)
    basis = ((1 - x**2).clamp(min=0).sqrt()[:, None] * x[:, None] ** powers).expand(len(found), -1, -1)
    prior = 0.08 * (1 - weight)
    goal = (weight * found + prior * rest)[..., None]
    system = basis.transpose(1, 2) @ (basis * (weight + prior)[..., None])
    system = system + 0.03 * torch.diag(torch.tensor([0.01, 1.0, 1.0, 2.0, 2.0], device=x.device))
    return (basis @ torch.linalg.solve(system, basis.transpose(1, 2) @ goal))[..., 0]
