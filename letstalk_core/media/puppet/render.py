"""Frames of puppets: one for each row of motion.

A frame is a backward warp of the portrait's layers. Fields say forward where a place of the portrait goes; their
inverse is found by fixed point at half the frame's size, which is enough for fields this smooth. What differs near
lips and eyes is computed in windows that follow the head. Shapes: b people, t frames, s side of the frame.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.motion_channels import MOTION
from .fields import BASES
from .geometry import EXTENT, axis_grid, invert, sample, sample_frames, smooth_step
from .puppet import Puppets
from .topology import EYES

TURN_DEGREES = 20.0  # of yaw and pitch at 1: what `letstalk generate` asks for, 0.4, is 8 degrees
# Curves beside motion; teeth_kept: lips parted as in the still
EXTRAS = ("tongue_tip", "tongue_out", "teeth_kept")
CHUNK = 8  # frames at once on a CPU
DEVICE_CHUNK = 64
SEAM = 0.7  # how dark
GAZE_X, GAZE_Y = 0.24, 0.16  # way of an iris at gaze = 1, in widths of the eye


class Pose:
    """Puppets in the poses of some frames: the curves, and the forward fields of their layers.

    motion (b, t, 15) with the columns of MOTION; extras (b, t, 3) or None.
    """

    def __init__(self, puppets: Puppets, motion: Tensor, extras: Tensor | None = None) -> None:
        self.puppets = puppets
        self.curves = {name: motion[..., i] for i, name in enumerate(MOTION)}
        extras = motion.new_zeros(*motion.shape[:2], len(EXTRAS)) if extras is None else extras
        self.curves |= {name: extras[..., i] for i, name in enumerate(EXTRAS)}
        coefficients = self._coefficients()
        self.upper_expression = self._expression(puppets.upper, coefficients)
        self.lower_expression = self._expression(puppets.lower, coefficients)
        self.upper = self._field(self.upper_expression)
        self.lower = self._field(self.lower_expression)

    def __getitem__(self, frames: slice | Tensor) -> Pose:
        """Some of the frames: a slice, or their numbers."""
        part = copy(self)
        part.curves = {name: curve[:, frames] for name, curve in self.curves.items()}
        for name in ("upper_expression", "lower_expression", "upper", "lower"):
            setattr(part, name, getattr(self, name)[:, frames])
        return part

    def _coefficients(self) -> Tensor:
        c = self.curves
        gate = (c["jaw"] * 9).clamp(0, 1)  # closed lips stay closed, whatever else the mouth does
        values = {
            "jaw": c["jaw"] * (1 - 0.22 * c["round"]),
            "wide": c["wide"] * (1 - 0.3 * c["jaw"]),
            "round": c["round"],
            "teeth": gate * c["teeth"],
            "smile": c["smile"],
            "gap": gate * (c["round"] + 0.25 * c["wide"]),
            "brow": c["brow"],
            "blink": c["blink"],
            "close": 1 - c["teeth_kept"],
        }
        return torch.stack([values[name] for name in BASES], -1)

    @staticmethod
    def _expression(fields: Tensor, coefficients: Tensor) -> Tensor:
        b, t, k = coefficients.shape
        return torch.bmm(coefficients, fields.reshape(b, k, -1)).reshape(b, t, *fields.shape[2:])

    def rigid(self, places: Tensor) -> Tensor:
        """Where the head's pose takes places (b, t or 1, 3, ...): (b, t, 2, ...)."""
        x, y, _ = self._turned(places)
        return torch.stack([x, y], 2)

    def in_space(self, places: Tensor) -> Tensor:
        """The same with depth (b, t, 3, ...), in the unit of the places."""
        x, y, z = self._turned(places)
        scale, deep = self.curves["scale"], self.puppets.head.centre[:, None, 2]
        extra = (..., *(None,) * (places.ndim - 3))
        return torch.stack([x, y, z * scale[extra] + deep[extra]], 2)

    def _turned(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c, p = self.curves, self.puppets
        extra = (None,) * (places.ndim - 3)

        def wide(x: Tensor) -> Tensor:
            return x[(..., *extra)]

        def centre(i: int) -> Tensor:
            return wide(p.head.centre[:, None, i])

        x, y, z = (places[:, :, i] - centre(i) for i in range(3))
        yaw, pitch = (torch.deg2rad(wide(c[k]) * TURN_DEGREES) for k in ("yaw", "pitch"))
        # yaw > 0: the nose to the right of the picture; pitch > 0: down. z grows into the head.
        x1, z1 = x * yaw.cos() - z * yaw.sin(), x * yaw.sin() + z * yaw.cos()
        y1, z2 = y * pitch.cos() - z1 * pitch.sin(), y * pitch.sin() + z1 * pitch.cos()
        near = 1 - 0.10 * (z2 - z)  # mild perspective
        x2 = x1 * near + centre(0) - wide(p.pivot[:, None, 0])
        y2 = y1 * near + centre(1) - wide(p.pivot[:, None, 1])
        cos, sin = (wide(f(c["roll"]) * c["scale"]) for f in (torch.cos, torch.sin))
        x3 = x2 * cos - y2 * sin + wide(p.pivot[:, None, 0] + 2 * c["shift_x"])
        y3 = x2 * sin + y2 * cos + wide(p.pivot[:, None, 1] + 2 * c["shift_y"])
        return x3, y3, z2

    def _field(self, expression: Tensor | None) -> Tensor:
        """Forward displacement (b, t, 2, G, G) of the pose after an expression (b, t, 3, G, G)."""
        p = self.puppets
        grid = axis_grid(p.depth.shape[-1], EXTENT, p.depth.device).permute(2, 0, 1)
        base = torch.cat([grid.expand(len(p), -1, -1, -1), p.depth[:, None]], 1)[:, None]
        moved = base if expression is None else base + expression
        total = (self.rigid(moved) - moved[:, :, :2]) * p.falloff[:, None, None]
        return total if expression is None else total + expression[:, :, :2]

    def skull(self) -> Tensor:
        """Forward field of what no expression moves."""
        return self._field(None)

    def lid(self) -> Tensor:
        """Forward field of the upper lids."""
        blink = self.curves["blink"].clamp(0, 1)[:, :, None, None, None]
        return self._field(self.upper_expression + blink * self.puppets.lid[:, None])


@dataclass
class _Window:
    """A rectangle of the frame that follows the head: one size for all, a place for each frame (b, t)."""

    row: Tensor  # of the half-size maps
    column: Tensor
    height: int
    width: int

    @staticmethod
    def about(centre: Tensor, reach: tuple[float, float, float, float], half: int) -> _Window:
        """centre (b, t, 2); reach: left, up, right, down in halves of a frame."""
        left, up, right, down = reach
        width = min(half, math.ceil((left + right) / 2 * half) + 2)
        height = min(half, math.ceil((up + down) / 2 * half) + 2)
        column = ((centre[..., 0] - left + 1) / 2 * half).floor().long().clamp(0, half - width)
        row = ((centre[..., 1] - up + 1) / 2 * half).floor().long().clamp(0, half - height)
        return _Window(row, column, height, width)

    def _index(self, scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        b, t = self.row.shape
        device = self.row.device
        rows = self.row[..., None] * scale + torch.arange(self.height * scale, device=device)
        columns = self.column[..., None] * scale + torch.arange(self.width * scale, device=device)
        return (
            torch.arange(b, device=device).view(b, 1, 1, 1),
            torch.arange(t, device=device).view(1, t, 1, 1),
            rows[..., None],
            columns[:, :, None],
        )

    def places(self, half: int) -> Tensor:
        """Pixel centres of the half-size frame: (b, t, h, w, 2)."""
        _, _, rows, columns = self._index(1)
        y, x = torch.broadcast_tensors((rows + 0.5) / half * 2 - 1, (columns + 0.5) / half * 2 - 1)
        return torch.stack([x, y], -1)

    def take(self, maps: Tensor) -> Tensor:
        """(b, t, s, s, 2) -> (b, t, 2h, 2w, 2)."""
        return maps[self._index(2)]

    def take_picture(self, picture: Tensor) -> Tensor:
        """(b, c, t, s, s) -> (b, c, t, 2h, 2w)."""
        i, j, rows, columns = self._index(2)
        return picture.permute(0, 2, 3, 4, 1)[i, j, rows, columns].permute(0, 4, 1, 2, 3)

    def put(self, picture: Tensor, patch: Tensor) -> None:
        i, j, rows, columns = self._index(2)
        picture.permute(0, 2, 3, 4, 1)[i, j, rows, columns] = patch.permute(0, 2, 3, 4, 1)


def _double(s: Tensor) -> Tensor:
    """Maps (b, t, h, w, 2) at twice the size."""
    b, t, h, w, _ = s.shape
    flat = s.reshape(b * t, h, w, 2).permute(0, 3, 1, 2).contiguous()  # far faster than strided
    big = F.interpolate(flat, scale_factor=2, mode="bilinear")
    return big.permute(0, 2, 3, 1).reshape(b, t, 2 * h, 2 * w, 2)


def _wide(x: Tensor) -> Tensor:
    """(b, t) -> (b, 1, t, 1, 1)."""
    return x[:, None, :, None, None]


def render(pose: Pose, *, size: int = 256) -> Tensor:
    """Frames (b, t, 3, size, size) in 0..1."""
    count = pose.curves["jaw"].shape[1]
    chunk = CHUNK if pose.upper.device.type == "cpu" else max(1, DEVICE_CHUNK // len(pose.puppets))
    p = pose.puppets
    behind = None
    if bool((p.texture[:, 3] < 1).any()):
        behind = sample(p.background, axis_grid(size, 1.0, p.texture.device).expand(len(p), -1, -1, -1))
    return torch.cat([_render(pose[i : i + chunk], size, behind) for i in range(0, count, chunk)], 1)


def _render(pose: Pose, size: int, behind: Tensor | None) -> Tensor:
    p = pose.puppets
    b, t = pose.curves["jaw"].shape
    half = size // 2
    grid = axis_grid(half, 1.0, p.texture.device).expand(b, t, -1, -1, -1)
    su = _double(invert(pose.upper, grid))
    out = sample_frames(p.texture, su)
    picture, alpha = out[:, :3].contiguous(), out[:, 3:]
    _draw_eyes(pose, picture, su, half)
    _draw_mouth(pose, picture, su, half)
    if p.glasses is not None:
        _draw_glasses(pose, picture, p.glasses, half)
    if behind is not None:
        picture = torch.lerp(behind[:, :, None], picture, alpha)
    return picture.clamp_(0, 1).transpose(1, 2)


def _draw_eyes(pose: Pose, picture: Tensor, su: Tensor, half: int) -> None:
    """Irises move in their openings; the lid layer comes down over them."""
    p, c = pose.puppets, pose.curves
    gaze = torch.stack([c["gaze_x"] * GAZE_X, c["gaze_y"] * GAZE_Y], -1)
    blinking = c["blink"] > 0.01
    moving = ((gaze.abs() > 0.004).any(-1) | blinking).any(0).nonzero()[:, 0]
    if not len(moving):
        return
    if len(moving) < picture.shape[2]:  # the others look as they do in the still
        part = picture[:, :, moving]
        _draw_eyes(pose[moving], part, su[:, moving], half)
        picture[:, :, moving] = part
        return
    centre = p.head.points[:, [i for e in EYES for i in e.corners]].mean(1)
    wide = float(p.eye_width.max())
    across = p.head.points[:, [e.corners[0] for e in EYES], :2]
    side = float((across[:, 1] - across[:, 0]).norm(dim=-1).max()) / 2 + 0.45 * wide
    at = pose.rigid(centre[:, None])
    window = _Window.about(at, (side, 1.25 * wide, side, 0.75 * wide), half)
    s = window.take(su)
    patch = window.take_picture(picture)
    shifted = s
    for i in range(len(EYES)):
        move = gaze[:, :, None, None] * p.eye_width[:, i, None, None, None, None]
        r = (s - p.irises[:, None, None, None, i] - move).norm(dim=-1, keepdim=True)
        radius = p.iris_radius[:, i, None, None, None, None]
        shifted = shifted - move * smooth_step(2.3 * radius, 1.0 * radius, r)
    away = (gaze.norm(dim=-1) / 0.01).clamp(max=1)  # what the still shows comes in smoothly
    opening = sample_frames(p.eyes[:, 1:2], s) * _wide(away)
    patch = torch.lerp(patch, sample_frames(p.eyeballs, shifted), opening)
    shut = blinking.any(0).nonzero()[:, 0]
    if len(shut):
        places = window.places(half)[:, shut]
        source = _double(invert(pose[shut].lid(), places, steps=12, pace=0.55))
        layer = sample_frames(torch.cat([p.texture[:, :3], p.eyes[:, [0, 2, 3]]], 1), source)
        amount = _wide(c["blink"][:, shut].clamp(0, 1))
        # The lid goes down, the shadow of the brow stays
        here, on_lids = sample_frames(p.eyes[:, 3:], s[:, shut]).split(1, 1)
        # Lashes that stood up turn down: what is left on the lid is skin
        skin = sample_frames(p.lids, source)
        smooth = torch.lerp(layer[:, :3], skin[:, :3], skin[:, 3:] * amount)
        relit = (torch.lerp(here, on_lids, amount) - layer[:, 5:]).clamp(-0.4, 0.4).exp()
        lids = smooth * relit * (1 - 0.42 * amount * layer[:, 4:5])
        patch[:, :, shut] = torch.lerp(patch[:, :, shut], lids, layer[:, 3:4] * (amount * 8).clamp(0, 1))
    window.put(picture, patch)


def _draw_glasses(pose: Pose, picture: Tensor, glasses: Tensor, half: int) -> None:
    """They sit on the skull: no brow moves them."""
    p = pose.puppets
    centre = p.head.points[:, [i for e in EYES for i in e.corners]].mean(1)
    side, tall = 1.1 * float(p.head.half[:, 0].max()), 2.2 * float(p.eye_width.max())
    window = _Window.about(pose.rigid(centre[:, None]), (side, tall, side, tall), half)
    layer = sample_frames(glasses, _double(invert(pose.skull(), window.places(half), steps=4)))
    window.put(picture, torch.lerp(window.take_picture(picture), layer[:, :3], layer[:, 3:]))


def _mouth_window(pose: Pose, half: int) -> _Window:
    p = pose.puppets
    wide = float(p.head.mouth_width.max())
    down = 0.85 * wide + float((p.mouth.drop * p.head.mouth_width).max()) * 0.6
    return _Window.about(pose.rigid(p.head.mouth[:, None]), (wide, 0.9 * wide, wide, down), half)


def _draw_mouth(pose: Pose, picture: Tensor, su: Tensor, half: int) -> None:
    """The lower lip's layer, the folds of the skin, and the inside of the mouth."""
    p, c = pose.puppets, pose.curves
    window = _mouth_window(pose, half)
    places = window.places(half)
    s = window.take(su)
    sl = _double(invert(pose.lower, places))
    top = window.take_picture(picture)
    low = sample_frames(torch.cat([p.texture[:, :3], p.lips[:, [1, 3]]], 1), sl)
    up = sample_frames(p.lips[:, [0, 2]], s)
    kept = _wide(c["teeth_kept"])
    a_up, a_low = torch.lerp(up[:, :1], torch.ones_like(up[:, :1]), kept), low[:, 3:4] * (1 - kept)
    total = a_up + a_low
    skin = (top * a_up + low[:, :3] * a_low) / total.clamp(min=1e-3)
    share = a_low / total.clamp(min=1e-3)
    if p.inside.shape[1] > 2:  # what is left of them between lips that meet is a dark seam
        skin = skin * (1 - SEAM * p.mouth.own[:, None, None, None, None] * (1 - total).clamp(min=0))
    folds = torch.lerp(sample_frames(p.shades, s), sample_frames(p.shades, sl), share)
    strength = torch.stack([c["smile"] + 0.2 * c["wide"], c["round"], c["jaw"].clamp(max=1)], 1)[..., None, None]
    skin = skin * p.mouth.shadow((folds * strength).sum(1, keepdim=True))
    if bool((c["jaw"] > 0.005).any()):
        skull = _double(invert(pose.skull(), places, steps=3))
        uv = sample_frames(p.inside, skull)
        inside = (1 - total).clamp(min=0) * smooth_step(1.12, 0.98, uv[:, :1].abs())
        curves = {**c, "jaw": c["jaw"] * (1 - 0.22 * c["round"])}
        inner = p.mouth.draw(uv, curves, up[:, 1:2], low[:, 4:5])
        skin = (skin * total + inner * inside) / (total + inside).clamp(min=1e-3)
    window.put(picture, skin)
