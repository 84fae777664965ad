"""Where a run stands, as events for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Reporter"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `clip` and `step` count sampled ones, `frames` those that the sink has."""

    clip: int
    clips: int
    step: int
    steps: int
    frames: int
    total_frames: int
    likeness: float | None = None  # lowest drift score of the last clip, where there is a level for it


class Reporter:
    """Turns the sampler's steps and finished clips into Progress events."""

    def __init__(
        self, progress: Callable[[Progress], None] | None, clips: int, steps: int, total_frames: int
    ) -> None:
        self.progress, self.clips, self.steps, self.total = progress, clips, steps, total_frames
        self.clip, self.frames = 0, 0
        self.likeness: float | None = None

    def start_at(self, clip: int, frames: int) -> None:
        """So much is of an earlier run."""
        self.clip, self.frames = clip, frames

    def step_begins(self, clip: int, step: int, steps: int) -> None:
        self._send(step)

    def clip_done(self, frames: int, likeness: float | None) -> None:
        self.clip, self.frames, self.likeness = self.clip + 1, frames, likeness
        self._send(0)

    def _send(self, step: int) -> None:
        if self.progress is not None:
            now = Progress(self.clip, self.clips, step, self.steps, self.frames, self.total, self.likeness)
            self.progress(now)
