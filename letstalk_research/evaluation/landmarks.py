"""Where points of a drawn face lie in the picture, and which arrangements of them a person can have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..data.synthetic.faces import PITCH_SLIDE, PIVOT, YAW_SLIDE
from ..data.synthetic.identity import Identity
from ..data.synthetic.motion import MOTION, random_pose

__all__ = ["LANDMARKS", "ShapeModel", "landmark_positions"]

LANDMARKS = (
    *("left eye outer", "left eye inner", "right eye inner", "right eye outer"),
    *("left brow", "right brow", "nose", "mouth"),
)
POSES = 500  # that the arrangement is learnt from
FREEDOM = 7  # shift (2), roll, yaw, pitch, size, brows
LEEWAY = 1.2  # on the widest pose: beyond it a movement counts as an error

Array = NDArray[np.float64]


def landmark_positions(identity: Identity, motion: NDArray[np.floating], size: int) -> Array:
    """Shapes: motion (t, 15) -> (t, landmarks, 2): x and y in pixels, of drawings `size` pixels wide."""
    m = {name: np.asarray(motion, np.float64)[:, i, None] for i, name in enumerate(MOTION)}
    p = identity
    across = np.array([-p.eye_width, p.eye_width])
    corner_x, corner_y = p.eye_x + across, p.eye_y - p.eye_tilt * across  # of the right eye: inner, outer
    brow_x, brow_y = p.eye_x + 0.005, p.brow_y - p.brow_arch
    fu = np.array([-corner_x[1], -corner_x[0], *corner_x, -brow_x, brow_x, 0.0, 0.0])
    fv = np.array([corner_y[1], corner_y[0], *corner_y, brow_y, brow_y, p.nose_y, p.mouth_y])
    fv = np.repeat(fv[None], len(motion), axis=0)
    fv[:, 4:6] -= 0.045 * m["brow"]
    fv[:, 7:] += 0.010 * m["jaw"]
    depth = np.clip(1 - (fu / 0.6) ** 2 - (fv / 0.8) ** 2, 0, None)
    u, v = fu + YAW_SLIDE * m["yaw"] * depth, fv + PITCH_SLIDE * m["pitch"] * depth - PIVOT
    cos, sin, scale = np.cos(m["roll"]), np.sin(m["roll"]), p.zoom * m["scale"]
    x = p.center_x + m["shift_x"] + (u * cos - v * sin) * scale
    y = p.center_y + m["shift_y"] + PIVOT + (u * sin + v * cos) * scale
    return (np.stack([x, y], axis=-1) + 1) / 2 * size


@dataclass(frozen=True, eq=False)
class ShapeModel:
    """Arrangements of the landmarks of one person: principal components over random poses, within their ranges."""

    mean: Array  # (2 landmarks,)
    components: Array  # (FREEDOM, 2 landmarks)
    limits: Array  # (FREEDOM,)

    @classmethod
    def fit(cls, identity: Identity, rng: Generator, size: int) -> ShapeModel:
        x = landmark_positions(identity, random_pose(rng, POSES), size).reshape(POSES, -1)
        mean = x.mean(0)
        components = np.linalg.svd(x - mean, full_matrices=False)[2][:FREEDOM]
        return cls(mean, components, LEEWAY * np.abs((x - mean) @ components.T).max(0))

    def error(self, positions: Array) -> Array:
        """Root mean square distance from the nearest arrangement: (t, landmarks, 2) -> (t,), in pixels."""
        x = positions.reshape(len(positions), -1) - self.mean
        pose = np.clip(x @ self.components.T, -self.limits, self.limits)
        squared = np.square(x - pose @ self.components).sum(1)
        return np.asarray(np.sqrt(squared / (x.shape[1] / 2)))
