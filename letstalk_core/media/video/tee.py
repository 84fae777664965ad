"""Several frame sinks as one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...protocols import FrameSink, ResumableSink


class Tee:
    """Writes to every sink. If one fails to close, those not yet closed are dropped and its error passes on."""

    def __init__(self, sinks: Sequence[FrameSink]) -> None:
        self.sinks = list(sinks)
        self._open = list(sinks)

    @property
    def held(self) -> int:
        """Frames that all sinks have safe."""
        return min((s.held if isinstance(s, ResumableSink) else 0 for s in self.sinks), default=0)

    def resume_at(self, frame: int) -> None:
        for sink in self.sinks:
            if isinstance(sink, ResumableSink):
                sink.resume_at(frame)

    def write(self, frames: Tensor) -> None:
        for sink in self.sinks:
            sink.write(frames)

    def close(self, partial: bool = False) -> None:
        while self._open:
            self._open[0].close(partial=partial)
            self._open.pop(0)

    def abort(self) -> None:
        """Drop what was written; sinks already closed keep their results."""
        while self._open:
            self._open.pop(0).abort()
