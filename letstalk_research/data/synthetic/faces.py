"""Draws talking faces: flat shapes with soft shading, made of signed distances, on any torch device.

The drawing is designed for what an f32 autoencoder can carry: a large head, large eyes and mouth, bold outlines,
no fine texture. Lip width, lip rounding and the opening of the mouth are all plainly visible.

Coordinates: the picture spans -1..1, x to the right, y down. (u, v) are coordinates of the head after undoing its
position, roll and size; (fu, fv) slide over the surface of the head with yaw and pitch, so that features turn
while the outline stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.networks.motion_channels import MOTION
from letstalk_core.protocols import Device

from .canvas import JAW_DROP, Canvas, Params, bump, ellipse, head_distance, smooth
from .hair import glasses, hair_behind, hair_front
from .identity import Identity

FRAME_SIZE = 256
REGIONS = ("mouth", "left_eye", "right_eye")
CHUNK = 8  # frames drawn at once on a CPU: more falls out of the cache
DEVICE_CHUNK = 64  # elsewhere, where each operation costs a launch
PIVOT = 0.75  # v of the point the head rolls about
YAW_SLIDE, PITCH_SLIDE = 0.15, 0.10  # how far features slide at yaw, pitch = 1


def seen_at(
    person: Identity, m: Mapping[str, Any], fu: NDArray[np.float64], fv: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Where points (fu, fv) on the head of a person with the motion `m` are seen: (..., 2), x and y in pixels."""
    depth = np.clip(1 - (fu / 0.6) ** 2 - (fv / 0.8) ** 2, 0, None)
    u, v = fu + YAW_SLIDE * m["yaw"] * depth, fv + PITCH_SLIDE * m["pitch"] * depth - PIVOT
    cos, sin, scale = np.cos(m["roll"]), np.sin(m["roll"]), person.zoom * m["scale"]
    x = person.center_x + m["shift_x"] + (u * cos - v * sin) * scale
    y = person.center_y + m["shift_y"] + PIVOT + (u * sin + v * cos) * scale
    return (np.stack([x, y], -1) + 1) / 2 * size


def render(
    identity: Identity | Sequence[Identity],
    motion: Tensor | np.ndarray,
    *,
    size: int = FRAME_SIZE,
    device: Device = None,
) -> Tensor:
    """Draw one frame for each row of `motion`.

    identity: one person for all frames, or one for each frame.
    Shapes: motion (t, 15), columns as in `motion.MOTION` -> (t, size, size, 3) uint8 RGB. Raises: ConfigError.
    """
    moves = torch.as_tensor(np.asarray(motion), dtype=torch.float32, device=device)
    if moves.ndim != 2 or moves.shape[1] != len(MOTION):
        raise ConfigError(f"motion has shape {tuple(moves.shape)}, needs (frames, {len(MOTION)})")
    count = CHUNK if moves.device.type == "cpu" else DEVICE_CHUNK
    if isinstance(identity, Identity):
        return torch.cat([_draw([identity], chunk, size) for chunk in moves.split(count)])
    if len(identity) != len(moves):
        raise ConfigError(f"{len(identity)} identities for {len(moves)} frames; give one, or one for each frame")
    frames = torch.empty(len(moves), size, size, 3, dtype=torch.uint8, device=device)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, person in enumerate(identity):  # frames drawn together share the shapes that are switched on
        key = (person.hair_style, person.glasses, person.round_glasses, person.beard, person.lashes, person.v_neck)
        groups.setdefault((*key, person.spot), []).append(i)
    for members in groups.values():
        for start in range(0, len(members), count):
            index = members[start : start + count]
            frames[index] = _draw([identity[i] for i in index], moves[index], size)
    return frames


def regions(
    identity: Identity | Sequence[Identity], motion: Tensor | np.ndarray, *, size: int = FRAME_SIZE
) -> Tensor:
    """Boxes x0, y0, x1, y1 (pixels) around mouth, left eye and right eye as seen in the picture.

    Shapes: motion (t, 15) -> (t, 3, 4) int16, inside the picture.
    """
    moves = torch.as_tensor(np.asarray(motion), dtype=torch.float32, device="cpu")
    people = [identity] if isinstance(identity, Identity) else list(identity)
    p = Params(people, moves)
    boxes = []
    for name in REGIONS:
        if name == "mouth":
            fu, fv = torch.zeros_like(p.jaw), p.mouth_y + JAW_DROP * 0.55 * p.jaw
            half_w, half_h = 0.29, 0.19
        else:
            fu, fv = p.eye_x * (-1 if name == "left_eye" else 1) + 0 * p.jaw, p.eye_y + 0 * p.jaw
            half_w, half_h = 0.18, 0.15
        depth = (1 - (fu / 0.6) ** 2 - (fv / 0.8) ** 2).clamp(min=0)
        u, v = fu + YAW_SLIDE * p.yaw * depth, fv + PITCH_SLIDE * p.pitch * depth - PIVOT
        cos, sin = torch.cos(p.roll), torch.sin(p.roll)
        scale = p.zoom * p.scale
        x = p.center_x + p.shift_x + (u * cos - v * sin) * scale
        y = p.center_y + p.shift_y + PIVOT + (u * sin + v * cos) * scale
        boxes.append(torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1).reshape(-1, 4))
    pixels = ((torch.stack(boxes, 1) + 1) / 2 * size).round()
    return pixels.clamp(0, size).to(torch.int16)


def _draw(people: list[Identity], moves: Tensor, size: int) -> Tensor:
    p = Params(people, moves)
    axis = (torch.arange(size, device=moves.device) + 0.5) / size * 2 - 1
    x, y = axis.view(1, 1, -1), axis.view(1, -1, 1)
    canvas = Canvas(_background(p, x, y, len(moves)))
    scale = 1 / (p.zoom * p.scale)
    dx, dy = (x - p.center_x - p.shift_x) * scale, (y - p.center_y - p.shift_y - PIVOT) * scale
    cos, sin = torch.cos(p.roll), torch.sin(p.roll)
    u, v = dx * cos + dy * sin, dy * cos - dx * sin + PIVOT
    depth = (1 - (u / 0.6) ** 2 - (v / 0.8) ** 2).clamp_(min=0)
    fu, fv = u - YAW_SLIDE * p.yaw * depth, v - PITCH_SLIDE * p.pitch * depth
    _body(canvas, p, x, y, u, v)
    hair_behind(canvas, p, u, v)
    _neck(canvas, p, u, v)
    _head(canvas, p, u, v, fu, fv)
    _nose(canvas, p, fu, fv)
    if p.beard:
        _beard(canvas, p, u, v, fu, fv)
    _mouth(canvas, p, fu, fv)
    _eyes(canvas, p, fu, fv)
    hair_front(canvas, p, u, v, fu, fv)
    _brows(canvas, p, fu, fv)
    if p.glasses:
        glasses(canvas, p, fu, fv)
    return (canvas.image.clamp_(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _background(p: Params, x: Tensor, y: Tensor, count: int) -> Tensor:
    t = smooth(-1.2, 1.3, y + x * p.gradient)
    image = torch.lerp(p.background_top, p.background_bottom, t.unsqueeze(1))
    light = 0.92 + 0.14 * torch.exp(-(x * x + (y + 0.2) ** 2))
    if p.spot:
        light = light + 0.16 * smooth(0.62, 0.38, torch.sqrt((x - p.spot_x) ** 2 + (y - p.spot_y) ** 2))
    image = image * light.unsqueeze(1)
    return image.expand(count, -1, -1, -1).clone()


def _body(canvas: Canvas, p: Params, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> None:
    """Shoulders and shirt; they follow the head by a third."""
    rows = canvas.band(0.55, 1.0)
    bx, by = x - p.center_x - p.shift_x * 0.35, y[:, rows] - p.center_y - p.shift_y * 0.35
    by = by.expand(len(p.jaw), -1, -1)
    shoulders = ellipse(bx, by - 1.22, 0.86, 0.50)
    shade = 1.02 - 0.30 * smooth(0.55, 1.05, bx.abs()) + 0.10 * p.light * bx - 0.12 * smooth(0.75, 1.0, by)
    canvas.paint(p.shirt * shade.unsqueeze(1), canvas.cover(shoulders), rows)


def _neck(canvas: Canvas, p: Params, u: Tensor, v: Tensor) -> None:
    rows = canvas.band(0.35, 1.0)
    u, v = u[:, rows], v[:, rows]
    half = 0.215 + 0.20 * smooth(0.70, 0.98, v) ** 2
    bottom = 0.90 - 0.55 * (u * u) if not p.v_neck else 1.02 - 0.95 * u.abs()
    opening = torch.maximum(u.abs() - half, v - bottom)
    collar = torch.maximum(u.abs() - half - 0.045, v - bottom - 0.05)
    trim = p.collar if p.v_neck else p.shirt * 0.72
    canvas.paint(trim, canvas.cover(torch.maximum(collar, 0.74 - v)), rows)
    shade = 0.90 - 0.26 * smooth(0.86, 0.56, v) + 0.08 * p.light * u
    canvas.paint(p.skin * shade.unsqueeze(1), canvas.cover(opening), rows)


def _head(canvas: Canvas, p: Params, u: Tensor, v: Tensor, fu: Tensor, fv: Tensor) -> None:
    rows = canvas.band(-0.25, 0.35)  # ears
    eu, ev = u[:, rows].abs() - p.face_width - 0.005, v[:, rows] - 0.03 - 0.05 * p.pitch
    side = torch.sign(u[:, rows])
    ear = ellipse(eu - 0.03 * p.yaw * -side, ev, 0.062, 0.115)
    canvas.paint(p.skin * 0.90, canvas.cover(ear), rows)
    canvas.paint(p.skin * 0.72, 0.8 * canvas.cover(ear + 0.034, 3.0), rows)
    distance = head_distance(p, u, v)
    shade = 1.03 - 0.26 * smooth(-0.20, 0.02, distance) + 0.11 * p.light * fu - 0.07 * fv
    shade = shade - 0.10 * bump((fu / 0.16) ** 2 + ((fv - p.mouth_y - 0.13) / 0.05) ** 2)  # under the lower lip
    shade = shade + 0.06 * bump((fu / 0.40) ** 2 + ((fv + 0.33) / 0.22) ** 2)  # forehead
    socket = bump(((fu.abs() - p.eye_x) / 0.20) ** 2 + ((fv - p.eye_y + 0.02) / 0.15) ** 2)
    shade = shade - 0.10 * socket
    alpha = canvas.cover(distance)
    canvas.paint(p.skin * shade.unsqueeze(1), alpha)
    rows = canvas.band(-0.15, 0.55)
    blush = bump(((fu[:, rows].abs() - 0.30) / 0.17) ** 2 + ((fv[:, rows] - 0.17) / 0.13) ** 2)
    rosy = torch.tensor([0.86, 0.36, 0.34], device=u.device).view(1, 3, 1, 1)
    canvas.paint(rosy, 0.22 * blush * alpha[:, rows], rows)


def _nose(canvas: Canvas, p: Params, fu: Tensor, fv: Tensor) -> None:
    rows = canvas.band(-0.35, 0.45)
    fu, fv = fu[:, rows], fv[:, rows]
    dy = fv - p.nose_y
    side = fu * torch.sign(p.light)  # positive towards the light
    bridge = bump(((side + 0.055) / 0.055) ** 2) * smooth(-0.30, -0.05, dy) * smooth(0.05, 0.0, dy)
    canvas.paint(p.skin * 0.70, 0.45 * bridge, rows)
    shine = bump(((side - 0.012) / 0.035) ** 2) * smooth(-0.26, -0.12, dy) * smooth(0.03, -0.02, dy)
    canvas.paint(p.skin * 0.55 + 0.45, 0.32 * shine, rows)
    under = bump((fu / (p.nose_width * 1.25)) ** 2 + ((dy - 0.045) / 0.030) ** 2)
    canvas.paint(p.skin * 0.60, 0.75 * under, rows)
    nostril = ellipse(fu.abs() - p.nose_width * 0.52, dy - 0.022, 0.024, 0.013)
    canvas.paint(p.skin * 0.34, 0.85 * canvas.cover(nostril, 1.8), rows)


def _beard(canvas: Canvas, p: Params, u: Tensor, v: Tensor, fu: Tensor, fv: Tensor) -> None:
    rows = canvas.band(-0.1, 1.0)
    fu, fv, u = fu[:, rows], fv[:, rows], u[:, rows]
    edge = p.mouth_y + 0.16 - 1.15 * torch.sqrt(fu * fu + 0.012)  # upper edge rises towards the ears
    lower = smooth(-0.02, 0.02, fv - edge)
    around = torch.sqrt((fu / 1.22) ** 2 + ((fv - p.mouth_y - 0.045 * p.jaw) / 0.78) ** 2)
    skin_ring = smooth(0.0, 0.02, around - 0.165)
    inside = canvas.cover(head_distance(p, u, v[:, rows]), 2.0)
    moustache = smooth(0.02, -0.02, (fv - p.mouth_y + 0.082).abs() - 0.026) * smooth(0.21, 0.18, fu.abs())
    alpha = torch.maximum(lower * skin_ring, moustache) * inside
    canvas.paint(p.hair * 0.9 + p.skin * 0.06, 0.94 * alpha, rows)


def _mouth(canvas: Canvas, p: Params, fu: Tensor, fv: Tensor) -> None:
    rows = canvas.band(0.0, 0.95)
    x, y = fu[:, rows], fv[:, rows] - p.mouth_y - 0.010 * p.jaw
    half = p.mouth_width * (1 + 0.20 * p.wide - 0.46 * p.round + 0.08 * p.smile)
    t = x / half
    arc = (1 - t * t).clamp_(min=0)  # parabola: pointed corners
    bow = torch.lerp(arc, torch.sqrt(arc), 0.25 + 0.6 * p.round)  # rounded mouths open like an O
    curve = 0.012 * p.smile * (1 - 4.5 * t * t)  # smiling lifts the corners
    gate = (p.jaw * 9).clamp(0, 1)  # closed lips stay closed, whatever else the mouth does
    opening = 0.175 * p.jaw * (1 - 0.18 * p.round) + gate * (0.028 * p.round + 0.030 * p.teeth + 0.012 * p.wide)
    inner_top, inner_bottom = curve - 0.24 * opening * bow, curve + 0.76 * opening * bow
    thick = 1 + 0.40 * p.round - 0.18 * p.wide
    cupid = 1 - 0.30 * bump((t / 0.28) ** 2)
    outer_top = inner_top - p.upper_lip * thick * torch.sqrt(arc) * cupid
    outer_bottom = inner_bottom + p.lower_lip * thick * torch.sqrt(arc)
    within = canvas.cover((t.abs() - 1) * p.mouth_width)

    def between(top: Tensor, bottom: Tensor) -> Tensor:
        return canvas.cover(torch.maximum(top - y, y - bottom)) * within

    canvas.paint(p.lips * 0.84, between(outer_top, inner_bottom), rows)
    fullness = ((y - inner_bottom) / (outer_bottom - inner_bottom + 1e-3)).clamp(0, 1)
    gloss = 1.04 - 0.26 * fullness + 0.22 * bump(((fullness - 0.4) / 0.4) ** 2 + (t / 0.55) ** 2)
    canvas.paint(p.lips * gloss.unsqueeze(1), between(inner_bottom - 0.004, outer_bottom), rows)
    inside = between(inner_top, inner_bottom) * (opening * 50).clamp(0, 1)
    canvas.paint(torch.tensor([0.21, 0.05, 0.07], device=x.device).view(1, 3, 1, 1), inside, rows)
    tongue = inside * smooth(0.0, 0.02, y - (inner_bottom - 0.30 * opening * bow)) * smooth(0.9, 0.6, t.abs())
    canvas.paint(torch.tensor([0.78, 0.34, 0.36], device=x.device).view(1, 3, 1, 1), 0.9 * tongue, rows)
    white = torch.tensor([0.97, 0.95, 0.92], device=x.device).view(1, 3, 1, 1)
    show = (0.020 + 0.020 * p.teeth + 0.012 * p.wide) * (1 - 0.7 * p.round)
    canvas.paint(white, inside * smooth(0.005, -0.005, y - inner_top - show) * smooth(0.94, 0.80, t.abs()), rows)
    lower = inside * smooth(-0.005, 0.005, y - inner_bottom + 0.016 * p.teeth) * smooth(0.85, 0.65, t.abs())
    canvas.paint(white * 0.94, lower * (p.teeth * 1.3).clamp(0, 1), rows)
    line = canvas.cover((y - (inner_top + inner_bottom) / 2).abs() - 0.006, 1.8) * (1 - opening * 40).clamp(0, 1)
    canvas.paint(p.lips * 0.36, 0.95 * line * canvas.cover(x.abs() - half * 0.98), rows)


def _eyes(canvas: Canvas, p: Params, fu: Tensor, fv: Tensor) -> None:
    rows = canvas.band(-0.45, 0.30)
    fu, fv = fu[:, rows], fv[:, rows]
    side = torch.sign(fu)
    ax = fu.abs() - p.eye_x  # positive towards the ear on both sides
    ay = fv - p.eye_y + p.eye_tilt * ax
    t = ax / p.eye_width
    arc = (1 - t * t).clamp_(min=0)
    open_top, bottom = -p.eye_height * arc**0.75, p.eye_height * 0.72 * arc
    # edge of the upper lid
    lid = bottom * 0.75 + (open_top - bottom * 0.75) * (1 - p.blink) * (1 - 0.10 * p.smile)
    within = canvas.cover(ax.abs() - p.eye_width)
    canvas.paint(p.skin * 0.86, canvas.cover(torch.maximum(open_top - 0.012 - ay, ay - bottom)) * within, rows)
    eye = canvas.cover(torch.maximum(lid - ay, ay - bottom)) * within
    white = torch.tensor([0.98, 0.97, 0.96], device=fu.device).view(1, 3, 1, 1)
    canvas.paint(white * (0.80 + 0.20 * smooth(0.0, 0.035, ay - lid)).unsqueeze(1), eye, rows)
    ix, iy = ax - 0.045 * p.gaze_x * side, ay - 0.025 * p.gaze_y + 0.004
    r = torch.sqrt(ix * ix + iy * iy + 1e-9)
    canvas.paint(p.iris * 0.42, eye * canvas.cover(r - p.iris_radius), rows)
    glow = 0.85 + 0.5 * smooth(-0.05, 0.05, iy)
    canvas.paint(p.iris * glow.unsqueeze(1), eye * canvas.cover(r - p.iris_radius * 0.80), rows)
    dark = torch.tensor([0.03, 0.03, 0.04], device=fu.device).view(1, 3, 1, 1)
    canvas.paint(dark, eye * canvas.cover(r - p.iris_radius * 0.45), rows)
    spark = torch.sqrt((side * ix - 0.020 * torch.sign(p.light)) ** 2 + (iy + 0.022) ** 2 + 1e-9) - 0.015
    canvas.paint(white, eye * canvas.cover(spark), rows)
    lash = torch.tensor([0.10, 0.07, 0.07], device=fu.device).view(1, 3, 1, 1)
    thickness = 0.013 if p.lashes else 0.009
    rim = canvas.cover((ay - lid + 0.004).abs() - thickness * (0.6 + 0.5 * smooth(-1.0, 1.0, t)))
    canvas.paint(lash, 0.95 * rim * canvas.cover(ax.abs() - p.eye_width * 1.04), rows)
    if p.lashes:
        wing = canvas.cover((ay - lid + 0.25 * (ax - p.eye_width) + 0.010).abs() - 0.010)
        canvas.paint(lash, 0.95 * wing * canvas.cover((ax - p.eye_width * 1.10).abs() - p.eye_width * 0.16), rows)


def _brows(canvas: Canvas, p: Params, fu: Tensor, fv: Tensor) -> None:
    rows = canvas.band(-0.60, 0.05)
    fu, fv = fu[:, rows], fv[:, rows]
    t = (fu.abs() - p.eye_x - 0.005) / 0.135
    y = fv - p.brow_y + 0.045 * p.brow + p.brow_arch * (1 - (t - 0.15) ** 2) - 0.012 * t
    thickness = p.brow_thickness * (1.05 - 0.40 * (t * 0.5 + 0.5).clamp(0, 1))
    shape = torch.maximum(y.abs() - thickness, (t.abs() - 1) * 0.13)
    canvas.paint(p.hair * 0.62 + 0.015, 0.95 * canvas.cover(shape, 1.6), rows)
