"""Reads lips, eyes and head of a drawn face from pixels alone, to compare generated frames with the truth.

For each person ridge regressions are fitted from shrunken pixels to the drawing's parameters, on freshly drawn
random poses of that same person; they never see a model's output. How well they read is measured for every person
(`agreement`), on fresh drawings and on the autoencoder's round trip of them.

Landmarks (corners of the eyes, brows, nose, mouth) are read one by one, each from its own surroundings. Poses of
one person move them together; what no pose explains is an error of the face's shape (`landmark_error`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.networks.motion_channels import MOTION

from ..data.synthetic.faces import FRAME_SIZE, regions, render, seen_at
from ..data.synthetic.identity import Identity
from ..data.synthetic.motion import random_pose
from .metrics import Array, correlation

LIPS = ("jaw", "width", "round", "teeth")
EYES = ("blink", "gaze_x")
HEAD = ("yaw", "pitch", "roll", "shift_x", "shift_y")
FACE = LIPS + EYES + HEAD
LIP_CELLS, EYE_CELLS, HEAD_CELLS, LANDMARK_CELLS = (12, 18), (10, 28), (24, 24), (10, 10)  # rows, columns
ENLARGE = 1.3  # of the boxes around the portrait's mouth and eyes: heads move a little
REACH = 0.13  # half side of a landmark's surroundings, in picture widths
REGULARISATION = 4e-3
# Width of the lips as drawn: spreading widens them, rounding narrows them more (0.20 and 0.46 of half a mouth).
WIDE_WEIGHT, ROUND_WEIGHT = 0.20, 0.46
BATCH = 32  # frames shrunk at once

Box = tuple[int, int, int, int]
LANDMARKS = (
    *("left eye outer", "left eye inner", "right eye inner", "right eye outer"),
    *("left brow", "right brow", "nose", "mouth"),
)
POSES = 500  # that the arrangement is learnt from
FREEDOM = 7  # shift (2), roll, yaw, pitch, size, brows
LEEWAY = 1.2  # on the widest pose: beyond it a movement counts as an error


def face_truth(motion: NDArray[np.floating]) -> Array:
    """What the reader should find: columns FACE (t, 11) from motion (t, 15); lip width in half mouth widths."""
    m = np.asarray(motion, np.float64)
    jaw, wide, rounding, teeth = m[:, :4].T
    width = 1 + WIDE_WEIGHT * wide - ROUND_WEIGHT * rounding
    rest = m[:, [MOTION.index(name) for name in EYES + HEAD]]
    return np.concatenate([np.stack([jaw, width, rounding, teeth], axis=1), rest], axis=1)


def agreement(found: Array, wanted: Array) -> dict[str, float]:
    """Correlation of each of FACE as read with the truth: (t, 11) both."""
    return {name: correlation(found[:, i], wanted[:, i]) for i, name in enumerate(FACE)}


@dataclass(frozen=True, eq=False)
class _Ridge:
    """A linear reading of the shrunken pixels in a box (x0, y0, x1, y1)."""

    box: Box
    cells: tuple[int, int]
    mean: Array
    deviation: float
    weights: Array
    bias: Array

    @classmethod
    def fit(cls, drawings: Tensor, box: Box, cells: tuple[int, int], wanted: Array) -> _Ridge:
        x = _pixels(drawings, box, cells)
        mean, deviation, bias = x.mean(0), float(x.std()) + 1e-6, wanted.mean(0)
        z = (x - mean) / deviation
        # Fewer drawings than pixels: the dual form solves an n x n system.
        dual = np.linalg.solve(z @ z.T + REGULARISATION * len(z) * np.eye(len(z)), wanted - bias)
        return cls(box, cells, mean, deviation, z.T @ dual, bias)

    def read(self, frames: Tensor) -> Array:
        z = (_pixels(frames, self.box, self.cells) - self.mean) / self.deviation
        return np.asarray(z @ self.weights + self.bias)


@dataclass(frozen=True, eq=False)
class FaceReader:
    """Reads FACE and the landmarks of one drawn person whose head stays about where it is in the portrait."""

    size: int
    readers: tuple[_Ridge, ...]  # lips, eyes, head: together the columns FACE
    landmark_readers: tuple[_Ridge, ...]
    shape: ShapeModel
    drawings: Tensor  # (n, size, size, 3) uint8: the poses that it was fitted on

    @classmethod
    def fit(
        cls,
        identity: Identity,
        portrait_motion: NDArray[np.floating],
        rng: Generator,
        *,
        poses: int = 240,
        size: int = FRAME_SIZE,
    ) -> FaceReader:
        """Draw the person in random poses and learn to read them. `portrait_motion` (15,) is the portrait's pose.

        Raises: ConfigError for too few poses.
        """
        if poses < 16:
            raise ConfigError(f"poses={poses} must be at least 16; 240 give reliable readings")
        motion = random_pose(rng, poses)
        shutting = rng.random(poses) < 0.4  # the drawings for training blink too seldom to learn lids from
        motion[shutting, MOTION.index("blink")] = rng.uniform(0, 1, int(shutting.sum()))
        drawings = render(identity, motion, size=size).cpu()
        pose = np.asarray(portrait_motion)[None]
        mouth, left, right = regions(identity, pose, size=size)[0].tolist()
        eyes = [min(left[0], right[0]), min(left[1], right[1]), max(left[2], right[2]), max(left[3], right[3])]
        truth = face_truth(motion)
        edge = len(LIPS) + len(EYES)
        readers = (
            _Ridge.fit(drawings, _enlarged(mouth, size), LIP_CELLS, truth[:, : len(LIPS)]),
            _Ridge.fit(drawings, _enlarged(eyes, size), EYE_CELLS, truth[:, len(LIPS) : edge]),
            _Ridge.fit(drawings, (0, 0, size, size), HEAD_CELLS, truth[:, edge:]),
        )
        positions = landmark_positions(identity, motion, size)
        centres = landmark_positions(identity, pose, size)[0]
        reach = max(4, round(REACH * size))
        around = []
        for k, (x, y) in enumerate(centres.round().astype(int)):
            box = (max(0, x - reach), max(0, y - reach), min(size, x + reach), min(size, y + reach))
            around.append(_Ridge.fit(drawings, box, LANDMARK_CELLS, positions[:, k]))
        return cls(size, readers, tuple(around), ShapeModel.fit(identity, rng, size), drawings)

    def read(self, frames: Tensor) -> Array:
        """Shapes: frames (t, size, size, 3) uint8 -> (t, 11), columns FACE. Raises: ConfigError."""
        self._check_shape(frames)
        return np.concatenate([reader.read(frames) for reader in self.readers], axis=1)

    def landmarks(self, frames: Tensor) -> Array:
        """Shapes: frames (t, size, size, 3) uint8 -> (t, landmarks, 2), x and y in pixels. Raises: ConfigError."""
        self._check_shape(frames)
        return np.stack([reader.read(frames) for reader in self.landmark_readers], axis=1)

    def landmark_error(self, frames: Tensor) -> Array:
        """Pixels (root mean square) by which the landmarks lie where no pose of this person puts them: (t,)."""
        return self.shape.error(self.landmarks(frames))

    def _check_shape(self, frames: Tensor) -> None:
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (self.size, self.size, 3):
            raise ConfigError(f"frames have shape {list(frames.shape)}, need (t, {self.size}, {self.size}, 3)")


def _enlarged(box: list[int], size: int) -> Box:
    x0, y0, x1, y1 = box
    grow_x, grow_y = round((x1 - x0) * (ENLARGE - 1) / 2), round((y1 - y0) * (ENLARGE - 1) / 2)
    return max(0, x0 - grow_x), max(0, y0 - grow_y), min(size, x1 + grow_x), min(size, y1 + grow_y)


def _pixels(frames: Tensor, box: Box, cells: tuple[int, int]) -> Array:
    """Colours of the shrunken box in 0..1: (t, rows * columns * 3)."""
    x0, y0, x1, y1 = box
    small = []
    for part in frames[:, y0:y1, x0:x1].split(BATCH):
        crop = rearrange(part.cpu().float() / 255, "t h w c -> t c h w")
        small.append(rearrange(F.interpolate(crop, size=cells, mode="area"), "t c h w -> t (h w c)"))
    return np.asarray(torch.cat(small).double().numpy())


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
    return seen_at(p, m, fu, fv, size)


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
