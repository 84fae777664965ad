"""Progress on stderr: a line that rewrites itself on a terminal, one plain line per clip elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TextIO

from ..generate.progress import Progress

REDRAW_SECONDS = 0.1
BAR = 20


def format_seconds(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ProgressLine:
    """Shows clips, steps, frames per second and the time left.

    Call it with each Progress; `end` finishes the line. A stream that nobody reads is not written to again.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.tty = self.stream.isatty()
        self.started = time.monotonic()
        self._drawn = 0.0
        self._width = 0
        self._clips = 0

    def __call__(self, now: Progress) -> None:
        if self.quiet:
            return
        try:
            self._show(now)
        except (OSError, ValueError):  # a closed pipe or terminal, a full disk
            self.quiet = True

    def _show(self, now: Progress) -> None:
        moment = time.monotonic()
        text = self._text(now, moment - self.started)
        if self.tty:
            last = now.clip == now.clips
            if moment - self._drawn >= REDRAW_SECONDS or last:
                self._drawn = moment
                text = text[: max(10, shutil.get_terminal_size().columns - 1)]
                self.stream.write("\r" + text.ljust(self._width))
                self._width = len(text)
        elif now.clip > self._clips:
            self._clips = now.clip
            self.stream.write(text + "\n")
        self.stream.flush()

    def end(self) -> None:
        if self.tty and self._width:
            with contextlib.suppress(OSError, ValueError):
                self.stream.write("\n")
            self._width = 0

    def _text(self, now: Progress, elapsed: float) -> str:
        done = (now.clip + now.step / max(now.steps, 1)) / max(now.clips, 1)
        filled = round(BAR * min(done, 1))
        left = format_seconds(elapsed * (1 - done) / done) if done > 0 else "?"
        rate = now.frames / elapsed if elapsed > 0 else 0.0
        likeness = f", likeness {now.likeness:.2f}" if now.likeness is not None else ""
        clip = min(now.clip + (now.step > 0 or now.clip == 0), now.clips)
        return (
            f"[{'#' * filled}{'.' * (BAR - filled)}] clip {clip}/{now.clips}, step {now.step}/{now.steps},"
            f" {now.frames}/{now.total_frames} frames, {rate:.1f} frames/s, {left} left{likeness}"
        )
