"""What a puppet's face does in a video: lips by the sound; lids, gaze, brows and smile as they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ConfigError
from ..networks.lips import Lips
from ..networks.motion_channels import LIPS, MOTION, POSE
from ..sampling.motion import Movement


class Heard(Protocol):
    """States of the audio encoder, by frame."""

    def windows(self, first: int, count: int, window: int) -> Tensor:
        """(count, window, layers, d) around frames; ConfigError for frames that are gone from a stream."""


class Hearing:
    """A recording that is heard from its start when frames are asked for that its stream has left behind: decoding
    is behind sampling, and may begin anew."""

    def __init__(self, hear: Callable[[], Heard]) -> None:
        self._hear, self._heard = hear, hear()

    def windows(self, first: int, count: int, window: int) -> Tensor:
        try:
            return self._heard.windows(first, count, window)
        except ConfigError:
            self._heard = self._hear()
            return self._heard.windows(first, count, window)


class FaceMotion:
    """`rows(first, count)` -> (count, len(MOTION)) float32 on the CPU, for any frames of a video. `pose_told`:
    whether anybody says where the head is."""

    def __init__(self, lips: Lips, sound: Heard, moves: Movement) -> None:
        self.lips, self.sound, self.moves = lips, sound, moves
        self.pose_told = set(POSE) <= set(moves.names)

    @torch.no_grad()
    def rows(self, first: int, count: int) -> Tensor:
        rows = torch.zeros(count, len(MOTION))
        windows = self.sound.windows(first, count, self.lips.window)
        rows[:, : len(LIPS)] = self.lips(windows.to(self.lips.mean.device)).cpu()
        told = self.moves.rows(first, count)
        for i, name in enumerate(self.moves.names):
            rows[:, MOTION.index(name)] = told[:, i]
        return rows
