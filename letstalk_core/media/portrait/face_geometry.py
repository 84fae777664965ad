"""Geometry of a face's 478 points: its place in the picture, the pose of the head, openings of mouth and eyes.

Points are (..., 478, 3): x to the right, y down, z away from the camera, all in the same unit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...networks.face_points import LEFT_EYE, LOWER_INNER, RIGHT_EYE, RIGID, UPPER_INNER

EYE_CORNERS = (33, 133, 362, 263)  # outer right, inner right, inner left, outer left
UPPER_LIDS, LOWER_LIDS = slice(3, 8), slice(10, 15)  # of an eye's list: the middle five of each lid


class Fit(NamedTuple):
    """Points are `scale * turn @ canonical + shift`; shapes (..., 3, 3), (...), (..., 3), float64."""

    turn: Tensor
    scale: Tensor
    shift: Tensor


class Pose(NamedTuple):
    """Degrees. yaw > 0: the nose points to the right of the picture; pitch > 0: down; roll > 0: clockwise."""

    yaw: Tensor
    pitch: Tensor
    roll: Tensor


def upright_square(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Middle (..., 2), side (...) and turn (...) in radians of the square around a face, level with its eyes."""
    flat = points[..., :468, :2]
    right = flat[..., EYE_CORNERS[:2], :].mean(-2)
    left = flat[..., EYE_CORNERS[2:], :].mean(-2)
    across = left - right
    turn = torch.atan2(across[..., 1], across[..., 0])
    cos, sin = torch.cos(turn)[..., None], torch.sin(turn)[..., None]
    x, y = flat.unbind(-1)
    u, v = x * cos + y * sin, y * cos - x * sin
    low, high = torch.stack([u.amin(-1), v.amin(-1)], -1), torch.stack([u.amax(-1), v.amax(-1)], -1)
    middle = (low + high) / 2
    u0, v0, cos, sin = middle[..., 0], middle[..., 1], cos[..., 0], sin[..., 0]
    centre = torch.stack([u0 * cos - v0 * sin, u0 * sin + v0 * cos], -1)
    return centre, (high - low).amax(-1), turn


def fit_head(points: Tensor, canonical: Tensor) -> Fit:
    """`canonical` (478, 3) turned, scaled and moved onto points (..., 478, 3), by what no expression moves."""
    ids = list(RIGID)
    here, there = points[..., ids, :].double(), canonical[ids].double()
    middle, origin = here.mean(-2, keepdim=True), there.mean(-2, keepdim=True)
    here, there = here - middle, there - origin
    u, _, v = torch.linalg.svd(here.transpose(-1, -2) @ there)
    sign = torch.det(u @ v)
    fix = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    turn = u @ torch.diag_embed(fix) @ v  # canonical -> here
    turned = there @ turn.transpose(-1, -2)
    scale = (here * turned).sum((-1, -2)) / (there * there).sum()
    shift = middle[..., 0, :] - scale[..., None] * (origin @ turn.transpose(-1, -2))[..., 0, :]
    return Fit(turn, scale, shift)


def head_pose(points: Tensor, canonical: Tensor) -> Pose:
    """Turn of the head (...) against `canonical` (478, 3), by the points that no expression moves."""
    turn = fit_head(points, canonical).turn
    # The nose points along -z of the canonical head.
    nose = -turn[..., :, 2]
    yaw = torch.atan2(nose[..., 0], -nose[..., 2])
    pitch = torch.atan2(nose[..., 1], torch.hypot(nose[..., 0], nose[..., 2]))
    roll = torch.atan2(turn[..., 1, 0], turn[..., 0, 0])
    return Pose(*(torch.rad2deg(angle).to(points.dtype) for angle in (yaw, pitch, roll)))


def eye_distance(points: Tensor) -> Tensor:
    """Between the middles of the eyes, in space: turning the head does not shorten it."""
    right, left = points[..., EYE_CORNERS[:2], :].mean(-2), points[..., EYE_CORNERS[2:], :].mean(-2)
    return (left - right).norm(dim=-1)


def mouth_opening(points: Tensor) -> Tensor:
    """Between the lips' inner edges, middle third, as a part of the eye distance."""
    upper, lower = points[..., UPPER_INNER[4:7], :], points[..., LOWER_INNER[4:7], :]
    along = _down(points)
    gap = ((lower - upper) * along[..., None, :]).sum(-1).mean(-1)
    return gap.clamp(min=0) / eye_distance(points)


def mouth_width(points: Tensor) -> Tensor:
    """Between the corners of the mouth, in space, as a part of the eye distance."""
    return (points[..., 291, :] - points[..., 61, :]).norm(dim=-1) / eye_distance(points)


def eye_opening(points: Tensor) -> Tensor:
    """Height of each eye by its width: (..., 2), right and left; about 0.3 when open, below 0.1 when shut."""
    found = []
    along = _down(points)
    for eye in (RIGHT_EYE, LEFT_EYE):
        upper, lower = points[..., eye[UPPER_LIDS], :], points[..., eye[LOWER_LIDS], :]
        gap = ((lower - upper) * along[..., None, :]).sum(-1).mean(-1).clamp(min=0)
        found.append(gap / (points[..., eye[1], :] - points[..., eye[0], :]).norm(dim=-1))
    return torch.stack(found, -1)


def _down(points: Tensor) -> Tensor:
    """Unit vector (..., 3) from the eyes to the mouth."""
    eyes = points[..., EYE_CORNERS, :].mean(-2)
    mouth = points[..., (61, 291), :].mean(-2)
    return torch.nn.functional.normalize(mouth - eyes, dim=-1)
