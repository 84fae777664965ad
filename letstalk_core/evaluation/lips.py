"""Reads the mouth of a drawn face from pixels alone, so that lips of generated frames can be compared with truth.

For each person a ridge regression is fitted from the pixels around the mouth to the mouth's shape, on freshly
drawn random poses of that same person; it never sees a model's output. On fresh drawings it agrees with the truth
at about 0.99 (jaw, lip width), 0.95 (rounding) and 0.86 (teeth): `LipReader.check` measures it for the person at
hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from einops import rearrange
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ..data.synthetic.faces import FRAME_SIZE, regions, render
from ..data.synthetic.identity import Identity
from ..data.synthetic.motion import random_pose
from ..errors import ConfigError
from .metrics import correlation

__all__ = ["LIPS", "LipReader", "lip_truth"]

LIPS = ("jaw", "width", "round", "teeth")
CELLS = (12, 18)  # rows and columns of the mouth crop after shrinking
ENLARGE = 1.3  # of the box around the portrait's mouth: heads move a little
REGULARISATION = 4e-3
# Width of the lips as drawn: spreading widens them, rounding narrows them more (0.20 and 0.46 of half a mouth).
WIDE_WEIGHT, ROUND_WEIGHT = 0.20, 0.46

Array = NDArray[np.float64]


def lip_truth(motion: NDArray[np.floating]) -> Array:
    """What the reader should find: columns LIPS (t, 4) from motion (t, 15); lip width in half mouth widths."""
    jaw, wide, rounding, teeth = np.asarray(motion, np.float64)[:, :4].T
    width = 1 + WIDE_WEIGHT * wide - ROUND_WEIGHT * rounding
    return np.stack([jaw, width, rounding, teeth], axis=1)


@dataclass(frozen=True, eq=False)
class LipReader:
    """Reads LIPS of one drawn person whose mouth stays about where `box` (x0, y0, x1, y1 in pixels) is."""

    identity: Identity
    box: tuple[int, int, int, int]
    size: int
    mean: Array
    deviation: float
    weights: Array
    bias: Array
    drawings: Tensor  # (n, size, size, 3) uint8: the poses that it was fitted on

    @classmethod
    def fit(
        cls,
        identity: Identity,
        portrait_motion: NDArray[np.floating],
        rng: Generator,
        *,
        poses: int = 160,
        size: int = FRAME_SIZE,
    ) -> LipReader:
        """Draw the person in random poses and learn to read them. `portrait_motion` (15,) is the portrait's pose.

        Raises: ConfigError for too few poses.
        """
        if poses < 16:
            raise ConfigError(f"poses={poses} must be at least 16; 160 give reliable readings")
        motion = random_pose(rng, poses)
        drawings = render(identity, motion, size=size).cpu()
        x0, y0, x1, y1 = regions(identity, np.asarray(portrait_motion)[None], size=size)[0, 0].tolist()
        grow_x, grow_y = round((x1 - x0) * (ENLARGE - 1) / 2), round((y1 - y0) * (ENLARGE - 1) / 2)
        box = (max(0, x0 - grow_x), max(0, y0 - grow_y), min(size, x1 + grow_x), min(size, y1 + grow_y))
        x, y = _pixels(drawings, box), lip_truth(motion)
        mean, deviation, bias = x.mean(0), float(x.std()) + 1e-6, y.mean(0)
        z = (x - mean) / deviation
        # Fewer drawings than pixels: the dual form solves an n x n system.
        dual = np.linalg.solve(z @ z.T + REGULARISATION * len(z) * np.eye(len(z)), y - bias)
        return cls(identity, box, size, mean, deviation, z.T @ dual, bias, drawings)

    def read(self, frames: Tensor) -> Array:
        """Shapes: frames (t, size, size, 3) uint8 -> (t, 4), columns LIPS. Raises: ConfigError."""
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (self.size, self.size, 3):
            raise ConfigError(f"frames have shape {list(frames.shape)}, need (t, {self.size}, {self.size}, 3)")
        z = (_pixels(frames, self.box) - self.mean) / self.deviation
        return np.asarray(z @ self.weights + self.bias)

    def check(self, frames: Tensor, motion: NDArray[np.floating]) -> dict[str, float]:
        """Correlation of each reading with the truth, on drawings that were not used for fitting."""
        found, wanted = self.read(frames), lip_truth(motion)
        return {name: correlation(found[:, i], wanted[:, i]) for i, name in enumerate(LIPS)}


def _pixels(frames: Tensor, box: tuple[int, int, int, int]) -> Array:
    """Colours of the shrunken mouth crop in 0..1: (t, rows * columns * 3)."""
    x0, y0, x1, y1 = box
    crop = rearrange(frames[:, y0:y1, x0:x1].cpu().float() / 255, "t h w c -> t c h w")
    small = F.interpolate(crop, size=CELLS, mode="area")
    return np.asarray(rearrange(small, "t c h w -> t (h w c)").double().numpy())
