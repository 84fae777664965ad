"""A sound as the authors' code hears it (docs/model.md, Interchange)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...networks.statistics import WaveformMoments
from .alignment import SAMPLE_RATE
from .decode import AudioSource, WaveformSource


class PaddedSource:
    """Any started frame counts, and zeros fill the last clip: `shown` frames of the sound, and then others.

    The zeros follow normalisation, so mean and deviation are those of the sound alone.
    """

    def __init__(self, source: AudioSource | WaveformSource, fps: float, clip_frames: int) -> None:
        self.source, self.name = source, source.name
        self.shown = max(1, math.ceil(source.seconds * fps - 1e-6))
        self._missing = -self.shown % clip_frames
        self._zeros = self._missing * int(SAMPLE_RATE // fps)

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.source
        yield torch.full((self._zeros,), self.source.moments().mean)

    def moments(self, kernel: int, stride: int) -> WaveformMoments:
        """Statistics with the zeros in them."""
        moments = copy.deepcopy(self.source.moments(kernel, stride))
        moments.pad(self._zeros)
        return moments

    def frames(self, fps: float) -> int:
        """Video frames that the encoder makes states for, a multiple of those of a clip."""
        return self.shown + self._missing
