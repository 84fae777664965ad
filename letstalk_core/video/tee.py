"""Several frame sinks as one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..protocols import FrameSink

__all__ = ["Tee"]


class Tee:
    """Writes to every sink. If one fails to close, those not yet closed are dropped and its error passes on."""

    def __init__(self, sinks: Sequence[FrameSink]) -> None:
        self.sinks = list(sinks)
        self._open = list(sinks)

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
