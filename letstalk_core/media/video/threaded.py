"""A sink that works in its own thread, so that decoding and encoding overlap with sampling."""

from __future__ import annotations

import queue
import threading
from typing import Any

from torch import Tensor

from ...protocols import ResumableSink


class ThreadedSink:
    """Hands frames or clips to another sink in a worker thread; `write` waits when `capacity` of them are queued.

    An error of the inner sink is raised by the next `write` or by `close`; the inner sink is then dropped.
    """

    def __init__(self, sink: Any, capacity: int = 4) -> None:
        self.sink = sink
        self._queue: queue.Queue[tuple[Any, ...] | None] = queue.Queue(maxsize=max(1, capacity))
        self._error: BaseException | None = None
        self._dropped = False
        self._thread = threading.Thread(target=self._work, name="letstalk-frames", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            if self._error is None and not self._dropped:
                try:
                    self.sink.write(*batch)
                except BaseException as error:  # raised again in the caller's thread
                    self._error = error

    @property
    def held(self) -> int:
        """Frames that the inner sink has safe; those in the queue are not."""
        return self.sink.held if isinstance(self.sink, ResumableSink) else 0

    def resume_at(self, frame: int) -> None:
        """Before the first `write`."""
        if isinstance(self.sink, ResumableSink):
            self.sink.resume_at(frame)

    def write(self, frames: Tensor, *more: Any) -> None:
        """Queue what the inner sink's `write` takes; the caller may change its tensor afterwards."""
        self._raise()
        self._queue.put((frames.detach().cpu().clone(), *more))

    def finish(self) -> None:
        """Wait until the inner sink has all frames. Afterwards only `close` or `abort` may be called."""
        self._stop()
        self._raise()

    def close(self, partial: bool = False) -> None:
        """Wait for the queue, then close the inner sink in the caller's thread."""
        self.finish()
        self.sink.close(partial=partial)

    def abort(self) -> None:
        self._dropped = True
        self._stop()
        self.sink.abort()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            error = self._error
            self.abort()
            raise error
