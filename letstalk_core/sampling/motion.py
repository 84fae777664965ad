"""How head, brows and eyes move when nobody says how: drawn at random, smooth, and the same for the same seed.

A network whose audio projection has `movement` channels is told in every frame where the head points and whether
the eyes are shut; this draws those numbers for a recording of any length, any part of it on demand. All but the
lids are relative to the portrait, so 0 is its pose and look. The lips are never among them: they follow the speech
alone. Source: docs/model.md, Motion.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..networks.motion_channels import GAZE_LIMIT, SWAY, units
from .motion_curves import MotionCurves

BLINK_SHAPE = (0.5, 1.0, 1.0, 0.6, 0.2)  # lids over five frames at 25 fps
SHARE = {"pitch": 0.75, "shift_y": 0.75, "brow": 0.75}  # the rest of the range is left to stress of the voice
SMILE = 0.12
BLINK_SLOT_S, GAZE_SLOT_S = 3.5, 7.0  # one blink, and at most one glance aside, in each of these
GLANCES = 0.8  # share of slots with one
EASE_S = 1.0  # the head leaves the portrait's pose within the first second
LARGEST_AMOUNT = 2.0


def check_amount(amount: float) -> None:
    """Raises: ConfigError for an amount of movement that is no number from 0 to 2."""
    if not (math.isfinite(amount) and 0 <= amount <= LARGEST_AMOUNT):
        raise ConfigError(
            f"movement={amount} must be a number from 0 (head still) to {LARGEST_AMOUNT:g}; 1 is usual"
        )


def sine_sway(seconds: NDArray[np.float64], random: np.random.Generator, least: float) -> NDArray[np.float64]:
    """Smooth movement within -1..1: three sine waves between 0.08 and 0.8 Hz, together `least` to 1 large."""
    rates = random.uniform((0.08, 0.2, 0.45), (0.2, 0.45, 0.8))
    phases = random.uniform(0.0, 2 * np.pi, 3)
    waves = np.sin(2 * np.pi * seconds[:, None] * rates + phases) @ np.array((0.5, 0.32, 0.18))
    return np.asarray(waves * random.uniform(least, 1.0))


def _ease(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 to 1 within the first second."""
    share = np.clip(seconds / EASE_S, 0.0, 1.0)
    return np.asarray(share**2 * (3 - 2 * share))


class Movement:
    """Movement of a video: `rows(first, count)` -> (count, channels) float32, whatever was asked for before.

    names: channels, out of `MOVEMENTS`. amount: scales head, brows and gaze; eyes blink at any amount. curves:
    replace channels, or are added to them, coming in over the first second. Raises: ConfigError.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        seed: int,
        fps: float = 25.0,
        amount: float = 1.0,
        curves: MotionCurves | None = None,
    ) -> None:
        units(names)
        check_amount(amount)
        self.names, self.seed, self.fps, self.amount = tuple(names), seed, fps, amount
        self.curves = curves or MotionCurves()

    def rows(self, first: int, count: int) -> Tensor:
        seconds = (first + np.arange(count)) / self.fps
        columns = []
        for name in self.names:
            given = self.curves.rows(name, first, count)
            column = self._channel(name, seconds) if given is None else given
            columns.append(column + self.curves.added.get(name, 0.0) * _ease(seconds))
        found = np.stack(columns, 1) if columns else np.zeros((count, 0))
        return torch.from_numpy(found.astype(np.float32))

    def _channel(self, name: str, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        if name == "blink":
            return self._blinks(seconds)
        if name in ("gaze_x", "gaze_y"):
            return self._gaze(name, seconds) * self.amount
        sway = sine_sway(seconds, self._random(name), 0.6) * self.amount * _ease(seconds)
        return SMILE * sway if name == "smile" else SHARE.get(name, 1.0) * SWAY[name] * sway

    def _blinks(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lids: 0 open, 1 shut, about seventeen times a minute, two to five seconds apart."""
        lids = np.zeros(len(seconds))
        at = (np.arange(len(BLINK_SHAPE) + 2) - 1) / 25
        for slot in self._slots(seconds, BLINK_SLOT_S):
            start = slot * BLINK_SLOT_S + self._random("blink", slot).uniform(0.3, 1.8)
            start = math.ceil(start * self.fps) / self.fps  # so that a frame sees them shut
            lids = np.maximum(lids, np.interp(seconds - start, at, (0.0, *BLINK_SHAPE, 0.0)))
        return lids

    def _gaze(self, name: str, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Eye direction: ahead, now and then aside for half a second to two."""
        gaze = np.zeros(len(seconds))
        for slot in self._slots(seconds, GAZE_SLOT_S):
            random = self._random("gaze", slot)  # both directions jump at once
            begin, held, x, y = random.uniform(
                (1.0, 0.5, -GAZE_LIMIT, -GAZE_LIMIT), (4.5, 2.0, GAZE_LIMIT, GAZE_LIMIT)
            )
            begin += slot * GAZE_SLOT_S
            if random.random() < GLANCES:
                gaze[(seconds >= begin) & (seconds < begin + held)] = x if name == "gaze_x" else y
        return gaze if name == "gaze_x" else 0.6 * gaze

    def _slots(self, seconds: NDArray[np.float64], length: float) -> range:
        """Numbers of the slots that the frames are in."""
        if not len(seconds):
            return range(0)
        return range(int(seconds[0] // length), int(seconds[-1] // length) + 1)

    def _random(self, *purpose: object) -> np.random.Generator:
        digest = hashlib.sha256(":".join(map(str, (self.seed, *purpose))).encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "little"))
