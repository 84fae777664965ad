"""A video as the frames of another, longer or shorter one: in order, and after its end back and forth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from torch import Tensor

from ...errors import MediaError
from .reader import read_video

HELD_BYTES = 128 * 2**20  # of frames that are held to be given out backwards


def back_and_forth(frames: int, count: int) -> list[int]:
    """Which of `frames` frames is shown at each of `count` places: 0 1 2 1 0 1 …"""
    period = max(1, 2 * frames - 2)
    return [min(i % period, period - i % period) if frames > 1 else 0 for i in range(count)]


class Film:
    """Frames (h, w, 3) uint8 of a video of any length at `fps`, by number. In rising order each is decoded once;
    in falling order some are held, so that memory stays the same and the beginning is decoded now and then."""

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        self.path, self.fps = path, fps
        self._frames: Iterator[Tensor] = iter(())
        self._next = -1  # number of the frame that the iterator gives
        self._held: dict[int, Tensor] = {}

    def __getitem__(self, numbers: Sequence[int]) -> list[Tensor]:
        """Frames of these numbers. Raises: MediaError for one behind the end."""
        return [self._frame(number) for number in numbers]

    def _frame(self, number: int) -> Tensor:
        if number in self._held:
            return self._held[number]
        falling = self._next > number
        if self._next < 0 or falling:
            self._frames, self._next = read_video(self.path, fps=self.fps), 0
        held: dict[int, Tensor] = {}
        for frame in self._frames:
            self._next += 1
            if falling and number - self._next < HELD_BYTES // frame.numel():
                held[self._next - 1] = frame
            if self._next > number:
                self._held = held or {number: frame}
                return frame
        raise MediaError(f"{self.path}: has no frame {number} any more; it was {self._next} frames long")
