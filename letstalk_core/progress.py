"""Where a run stands, as events for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Reporter"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `clip` and `step` count finished ones."""

    clip: int
    clips: int
    step: int
    steps: int
    frames: int
    total_frames: int


class Reporter:
    """Turns the sampler's steps and finished clips into Progress events."""

    def __init__(
        self, progress: Callable[[Progress], None] | None, clips: int, steps: int, total_frames: int
    ) -> None:
        self.progress, self.clips, self.steps, self.total = progress, clips, steps, total_frames
        self.clip, self.frames = 0, 0

    def start_at(self, clip: int, frames: int) -> None:
        """So much is of an earlier run."""
        self.clip, self.frames = clip, frames

    def step_begins(self, clip: int, step: int, steps: int) -> None:
        self._send(step)

    def clip_done(self, frames: int) -> None:
        self.clip, self.frames = self.clip + 1, frames
        self._send(0)

    def _send(self, step: int) -> None:
        if self.progress is not None:
            self.progress(Progress(self.clip, self.clips, step, self.steps, self.frames, self.total))
