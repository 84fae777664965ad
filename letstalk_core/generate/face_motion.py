"""What a puppet's face does in a video: lips by the sound; lids, gaze, brows and smile as they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ConfigError
from ..networks.lips import Lips
from ..networks.motion_channels import LIPS, MOTION
from ..sampling.motion import Movement

__all__ = ["FaceMotion", "Heard"]


class Heard(Protocol):
    """States of the audio encoder, by frame."""

    def windows(self, first: int, count: int, window: int) -> Tensor:
        """(count, window, layers, d) around frames; ConfigError for frames that are gone from a stream."""


class FaceMotion:
    """`rows(first, count)` -> (count, len(MOTION)) float32 on the CPU, for any frames of a video.

    `hear` begins to hear the recording from its start: decoding is behind sampling, and may begin anew.
    """

    def __init__(self, lips: Lips, hear: Callable[[], Heard], moves: Movement) -> None:
        self.lips, self.moves, self._hear = lips, moves, hear
        self._heard: Heard | None = None

    @torch.no_grad()
    def rows(self, first: int, count: int) -> Tensor:
        rows = torch.zeros(count, len(MOTION))
        place = self.lips.mean.device
        rows[:, : len(LIPS)] = self.lips(self._windows(first, count).to(place)).cpu()
        told = self.moves.rows(first, count)
        for i, name in enumerate(self.moves.names):
            rows[:, MOTION.index(name)] = told[:, i]
        return rows

    def _windows(self, first: int, count: int) -> Tensor:
        if self._heard is not None:
            try:
                return self._heard.windows(first, count, self.lips.window)
            except ConfigError:  # gone from the stream
                pass
        self._heard = self._hear()
        return self._heard.windows(first, count, self.lips.window)
