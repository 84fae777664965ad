"""Where the clips of a run go: decoded to a sink of frames, or kept as latents; and frames kept in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ..media.video.threaded import ThreadedSink
from ..protocols import FrameSink, ResumableSink
from ..sampling.clip import Clip
from .run import ClipSink, Decode


class DecodingSink:
    """A ClipSink that decodes, and hands what the sink of frames does not hold yet to it."""

    def __init__(self, sink: FrameSink, decode: Decode) -> None:
        self.sink, self.decode = sink, decode
        self.frames = 0  # the sink has had, also in earlier runs

    @property
    def held(self) -> int:
        return self.sink.held if isinstance(self.sink, ResumableSink) else 0

    def resume_at(self, frame: int) -> None:
        self.frames = frame
        if isinstance(self.sink, ResumableSink):
            self.sink.resume_at(frame)

    def write(self, latents: Tensor, clip: Clip) -> None:
        if clip.first >= self.frames:
            self.sink.write(self.decode(latents, clip))
            self.frames += clip.count

    def finish(self) -> None:
        if isinstance(self.sink, ThreadedSink):
            self.sink.finish()

    def close(self, partial: bool = False) -> None:
        self.sink.close(partial=partial)

    def abort(self) -> None:
        self.sink.abort()


class LatentSink:
    """A ClipSink that keeps all latents in memory, `clips`, and hands them on to `watch` too, if there is one."""

    held = 0

    def __init__(self, watch: ClipSink | None = None) -> None:
        self.clips: list[Tensor] = []
        self.watch = watch

    def resume_at(self, frame: int) -> None:
        """All clips come."""

    def write(self, latents: Tensor, clip: Clip) -> None:
        self.clips.append(latents)
        if self.watch is not None:
            self.watch.write(latents, clip)

    def finish(self) -> None:
        if self.watch is not None:
            self.watch.finish()

    def close(self, partial: bool = False) -> None:
        if self.watch is not None:
            self.watch.close(partial=partial)

    def abort(self) -> None:
        if self.watch is not None:
            self.watch.abort()


class KeptFrames:
    """A FrameSink in memory, for short videos. `state`: open, closed, partial or aborted."""

    def __init__(self) -> None:
        self.frames: list[Tensor] = []
        self.state = "open"

    def write(self, frames: Tensor) -> None:
        self.frames.append(frames.clone())

    def close(self, partial: bool = False) -> None:
        self.state = "partial" if partial else "closed"

    def abort(self) -> None:
        self.state = "aborted"

    @property
    def video(self) -> Tensor:
        """All of them, (t, h, w, 3) uint8."""
        return torch.cat(self.frames)
