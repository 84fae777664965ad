"""People who do not exist: stills put in a frame, faces exchanged between heads, shapes changed.

The inner face of a donor goes into the head of a host: fine structure from the donor, light and skin tone from the
host, so that there is no seam; hair, ears, neck, clothes and background are the host's. Then features are moved
and scaled at random. Everything is batched over people and determined by the numbers that are passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.media.puppet.geometry import EXTENT, RadialBasis, axis_grid, blur, smooth_step
from letstalk_core.media.puppet.puppet import Portraits
from letstalk_core.media.puppet.topology import BROWS, EYES, MESH_POINTS, MIRROR, MOUTH, TOP
from letstalk_core.networks.face_points import CHIN, NOSE_TIP, OVAL

from .stills import Still, face_height, read_picture

TEXTURE = 400  # px over 2 EXTENT: 1.3 texture pixels for one of a frame of 256, so that nothing aliases
FIELD = 96  # side of the grids on which pictures are warped
SHAPE_NUMBERS = 14


@dataclass(frozen=True)
class Framing:
    """Where the face sits: its height in heights of the frame, its centre (halves of a frame), roll in degrees."""

    face: float = 0.56
    x: float = 0.0
    y: float = 0.1
    roll: float = 0.0


def frame_stills(stills: Sequence[Still], framings: Sequence[Framing], *, texture: int = TEXTURE) -> Portraits:
    """Cut each picture so that its face sits as told. Raises: MediaError for a picture that cannot be read."""
    cut = [_framed(still, framing, texture) for still, framing in zip(stills, framings, strict=True)]
    return Portraits(torch.cat([c[0] for c in cut]), torch.stack([c[1] for c in cut]))


def _framed(still: Still, framing: Framing, texture: int) -> tuple[Tensor, Tensor]:
    picture, points = read_picture(still)
    height, width = picture.shape[-2:]
    across = points[EYES[1].corners[0]] - points[EYES[0].corners[0]]
    turn = math.atan2(float(across[1]), float(across[0])) - math.radians(framing.roll)
    unit = face_height(points) / (2 * framing.face)  # pixels of the picture in one half of a frame
    oval = points[list(OVAL), :2]
    centre = (oval.amax(0) + oval.amin(0)) / 2
    cos, sin = math.cos(turn), math.sin(turn)
    rotation = torch.tensor([[cos, -sin], [sin, cos]])  # row vectors: plane -> picture is x @ rotation.T
    place = torch.tensor([framing.x, framing.y])
    plane = (points[:, :2] - centre) @ rotation / unit + place
    shrink = float(unit) * 2 * EXTENT / texture  # picture pixels for one of the texture
    if shrink > 1.25:
        size = [max(2, round(s / shrink)) for s in picture.shape[-2:]]
        picture = F.interpolate(picture[None], size=size, mode="bilinear", antialias=True)[0]
    grid = ((axis_grid(texture, EXTENT) - place) @ rotation.T) * unit + centre
    unit_square = grid / torch.tensor([width, height]) * 2 - 1
    return _cut(picture, unit_square), torch.cat([plane, points[:, 2:] / unit], 1)


def _cut(picture: Tensor, at: Tensor) -> Tensor:
    """The picture at places (T, T, 2) of -1..1; what lies outside is its edge, softer the farther out."""
    inside = F.grid_sample(picture[None], at[None], mode="bicubic", align_corners=False, padding_mode="border")
    beyond = (at.abs().amax(-1) - 1).clamp(min=0)[None, None]
    if not bool((beyond > 0).any()):
        return inside.clamp(0, 1)
    soft = smooth_step(0.0, 0.12, blur(beyond, 4.0))
    return torch.lerp(inside, blur(inside, 0.02 * at.shape[0]), soft).clamp(0, 1)


def mirrored(people: Portraits) -> Portraits:
    """Mirror images."""
    points = people.points[:, list(MIRROR)] * torch.tensor([-1.0, 1.0, 1.0], device=people.points.device)
    return Portraits(people.texture.flip(-1), points)


def _warp(texture: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Textures with `source` points (b, 478, 3) moved to `target`; the edge stays."""
    edge = axis_grid(8, EXTENT * 8 / 7, texture.device).reshape(-1, 2)
    edge = edge[edge.abs().amax(-1) > 0.99 * EXTENT].expand(len(texture), -1, -1)
    keep = [*range(0, MESH_POINTS, 2), *range(MESH_POINTS, source.shape[1])]
    points = torch.cat([target[:, keep, :2], edge], 1)
    move = torch.cat([source[:, keep, :2] - target[:, keep, :2], torch.zeros_like(edge)], 1)
    coarse = RadialBasis(points, move)(axis_grid(FIELD, EXTENT, texture.device).reshape(-1, 2))
    coarse = coarse.transpose(1, 2).reshape(-1, 2, FIELD, FIELD)
    size = texture.shape[-1]
    fine = F.interpolate(coarse, size=(size, size), mode="bilinear").permute(0, 2, 3, 1)
    at = (axis_grid(size, EXTENT, texture.device) + fine) / EXTENT
    return F.grid_sample(texture, at, mode="bicubic", align_corners=False, padding_mode="reflection").clamp(0, 1)


def _oval(points: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and half axes (b, 2) of the outline of the face."""
    oval = points[:, list(OVAL), :2]
    low, high = oval.amin(1), oval.amax(1)
    return (low + high) / 2, (high - low) / 2


def combine(host: Portraits, donor: Portraits, amount: Tensor, shape: Tensor) -> Portraits:
    """Give hosts the inner faces of donors.

    amount, shape (b,) in 0..1: how much of the donor's texture, and of its proportions.
    """
    core = [*EYES[0].corners, *EYES[1].corners, NOSE_TIP, *MOUTH]
    a, b = host.points, donor.points
    a0, b0 = a[:, core].mean(1, keepdim=True), b[:, core].mean(1, keepdim=True)
    size = (a[:, core, :2] - a0[..., :2]).norm(dim=-1).mean(1) / (b[:, core, :2] - b0[..., :2]).norm(dim=-1).mean(
        1
    )
    fitted = (b - b0) * size[:, None, None] + a0
    middle, half = _oval(a)
    reach = ((a[..., :2] - middle[:, None]) / half[:, None]).norm(dim=-1)
    weight = ((1 - reach) / 0.35).clamp(0, 1) * (shape * amount)[:, None]
    target = a + weight[..., None] * (fitted - a)
    back, front = _warp(host.texture, a, target), _warp(donor.texture, b, target)
    middle, half = _oval(target)
    grid = axis_grid(back.shape[-1], EXTENT, back.device)
    r = (
        (grid - middle[:, None, None] - torch.tensor([0.0, 0.04], device=grid.device)) / half[:, None, None]
    ).norm(dim=-1)[:, None]
    sigma = 0.10 * back.shape[-1]
    known = smooth_step(1.05, 0.95, r)  # light is compared inside of the face only
    share = blur(known, sigma).clamp(min=1e-3)
    # Between adding and multiplying: the difference of the square roots' low frequencies.
    back_root, front_root = back.clamp(min=0).sqrt(), front.clamp(min=0).sqrt()
    low = (blur(back_root * known, sigma) - blur(front_root * known, sigma)) / share
    lit = (front_root + low).clamp(0, 1) ** 2
    return Portraits(torch.lerp(back, lit, amount[:, None, None, None] * smooth_step(0.92, 0.62, r)), target)


def reshape(people: Portraits, numbers: Tensor) -> Portraits:
    """Change face, jaw, eyes, nose, mouth and brows. numbers (b, SHAPE_NUMBERS): standard normal, cut at 2."""
    n = numbers.clamp(-2, 2)[..., None]
    p = people.points[..., :2]
    middle, half = (v[:, None] for v in _oval(people.points))
    r = (p - middle) / half
    wide = (
        0.045 * n[:, 0] + 0.05 * n[:, 1] * r[..., 1].clamp(0, 1) ** 1.5 + 0.03 * n[:, 2] * (-r[..., 1]).clamp(0, 1)
    )
    tall = 0.03 * n[:, 3] * r[..., 1].clamp(0, 1.1) + 0.02 * n[:, 4] * (-r[..., 1]).clamp(0, 1.1)
    move = torch.stack([half[..., 0] * r[..., 0] * wide, half[..., 1] * tall], -1)
    height = (people.points[:, CHIN] - people.points[:, TOP]).norm(dim=-1)[:, None, None]

    def around(centre: Tensor, radius: tuple[float, float]) -> tuple[Tensor, Tensor]:
        offset = p - centre
        near = torch.exp(-((offset / (height * torch.tensor(radius, device=p.device))) ** 2).sum(-1, keepdim=True))
        return offset, near

    def local(centre: Tensor, radius: tuple[float, float], sx: Tensor, sy: Tensor, dy: Tensor) -> Tensor:
        offset, near = around(centre, radius)
        scaled = offset * torch.stack([sx, sy], -1)
        return near * (scaled + height * torch.stack([torch.zeros_like(dy), dy], -1))

    zero = torch.zeros_like(n[:, 0])
    for eye in EYES:
        centre = p[:, list(eye.corners)].mean(1, keepdim=True)
        move = move + local(centre, (0.16, 0.16), 0.06 * n[:, 5], 0.09 * n[:, 6], 0.010 * n[:, 7])
        _, near = around(centre, (0.16, 0.16))
        side = torch.sign(centre - middle)[..., :1]
        move = move + near * side * height * torch.stack([0.012 * n[:, 8], zero], -1)
    nose = p[:, [NOSE_TIP]] - torch.cat([0 * height, 0.02 * height], -1)
    move = move + local(nose, (0.13, 0.13), 0.10 * n[:, 9], 0.06 * n[:, 10], zero)
    move = move + local(
        p[:, list(MOUTH)].mean(1, keepdim=True), (0.24, 0.14), 0.07 * n[:, 11], 0.12 * n[:, 12], zero
    )
    move = move + local(p[:, list(BROWS)].mean(1, keepdim=True), (0.4, 0.08), zero, zero, 0.012 * n[:, 13])
    target = torch.cat([p + move, people.points[..., 2:]], -1)
    return Portraits(_warp(people.texture, people.points, target), target)
