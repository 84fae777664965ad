"""What the points of faces say from frame to frame: how far mouth and eyes are open, where the head points.

Points are those of `media.puppet.topology`, (t, 478, 2) in pixels, NaN in frames in which no face was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from letstalk_core.media.puppet.topology import BROWS, EYES, MOUTH
from letstalk_core.networks.face_points import LOWER_INNER, NOSE_TIP, UPPER_INNER

from .metrics import Array

CURVES = ("opening", "width", "lids", "yaw", "pitch", "roll")
INNER = tuple(zip(UPPER_INNER[4:7], LOWER_INNER[4:7], strict=True))  # the middle third of the lips' inner edges
SHAPE = (*EYES[0].corners, *EYES[1].corners, NOSE_TIP, *BROWS)  # points that speech hardly moves


class PointReader(Protocol):
    """Finds the main face in each of some frames."""

    def __call__(self, frames: Tensor) -> Array:
        """(t, h, w, 3) uint8 -> (t, 478, 2)."""


class FinderReader:
    """Reads with the bundled face networks, as `letstalk_core.media.filmed_motion` follows a face."""

    def __call__(self, frames: Tensor) -> Array:
        from letstalk_core.media.filmed_motion import FaceFollower

        follow, found = FaceFollower(), np.full((len(frames), 478, 2), np.nan)
        for i, frame in enumerate(frames):
            face, _ = follow(frame)
            if face is not None:
                found[i] = face.points[:, :2].double().numpy()
        return found


@np.errstate(divide="ignore", invalid="ignore")
def face_curves(points: Array) -> Array:
    """Columns CURVES (t, 6). Lengths in eye distances, lids 0 open to 1 shut (against the usual opening), turns of
    the head as places of the nose between and below the eyes, roll in radians."""
    right, left = (points[:, list(e.corners)].mean(1) for e in EYES)
    across = left - right
    distance = np.linalg.norm(across, axis=-1)
    along = across / distance[:, None]
    down = np.stack([-along[:, 1], along[:, 0]], 1)

    def gap(upper: Sequence[int], lower: Sequence[int]) -> Array:
        apart = (points[:, list(lower)] - points[:, list(upper)]) * down[:, None]
        return np.asarray(apart.sum(-1).mean(1).clip(min=0))

    eyes = []
    for eye in EYES:
        width = np.linalg.norm(points[:, eye.corners[0]] - points[:, eye.corners[1]], axis=-1)
        eyes.append(gap(eye.upper[2:5], eye.lower[2:5]) / width)
    opened = np.mean(eyes, 0)
    usual = np.nanmedian(opened) if np.isfinite(opened).any() else np.nan
    nose = points[:, NOSE_TIP] - (right + left) / 2
    return np.stack(
        [
            gap([up for up, _ in INNER], [low for _, low in INNER]) / distance,
            np.linalg.norm(points[:, MOUTH[1]] - points[:, MOUTH[0]], axis=-1) / distance,
            1 - opened / usual,
            (nose * along).sum(-1) / distance,
            (nose * down).sum(-1) / distance,
            np.arctan2(across[:, 1], across[:, 0]),
        ],
        1,
    )


def bridged(curve: Array) -> Array:
    """A curve (t,) with what is missing drawn straight from neighbour to neighbour; all NaN if all is missing."""
    known = np.isfinite(curve)
    if known.all() or not known.any():
        return curve
    at = np.arange(len(curve))
    return np.interp(at, at[known], curve[known])


@np.errstate(divide="ignore", invalid="ignore")
def shape_error(points: Array, wanted: Array) -> Array:
    """Mean distance (t,) of eyes, brows and nose from where they should be, in eye distances.

    Place, size and turn in the picture are taken out first. Both (t, 478, 2).
    """
    a, b = (p[:, list(SHAPE)] @ np.array([1, 1j]) for p in (points, wanted))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    fit = (b * a.conj()).sum(1) / (abs(a) ** 2).sum(1)
    corners = [list(e.corners) for e in EYES]
    unit = np.linalg.norm(wanted[:, corners[0]].mean(1) - wanted[:, corners[1]].mean(1), axis=-1)
    return np.asarray(abs(fit[:, None] * a - b).mean(1) / unit)
