"""Where a run stands, as events for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..sampling.clip import Clip
from ..sampling.drift import DriftLog
from .run import Run, Watcher
from .sinks import DecodingSink


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


class Reporter(Watcher):
    """Turns the sampler's steps and finished clips into Progress events; `sink` knows how many frames arrived."""

    def __init__(self, progress: Callable[[Progress], None] | None, sink: DecodingSink | None = None) -> None:
        self.progress, self.sink = progress, sink
        self.clip = self.clips = self.steps = self.frames = self.total = 0
        self.drift_level = 0.0  # of the memory bank; without one, events say nothing of likeness
        self.likeness: float | None = None

    def began(self, run: Run, clips: int, frames: int) -> None:
        self.clips, self.total = len(run.plan), run.frames
        self.clip, self.frames = clips, frames

    def step_begins(self, clip: int, step: int, steps: int) -> None:
        self._send(step)

    def sampled(self, clip: Clip, drift: DriftLog) -> None:
        self.clip += 1
        self.frames = self.sink.frames if self.sink is not None else self.frames + clip.count
        self.likeness = drift.lowest() if self.drift_level > 0 else None
        self._send(0)

    def _send(self, step: int) -> None:
        if self.progress is not None:
            now = Progress(self.clip, self.clips, step, self.steps, self.frames, self.total, self.likeness)
            self.progress(now)
