"""One run: the clips of a plan, sampled one after another, written as they come, safe against being stopped.

Command line and ComfyUI both call `generate`; they differ in what they put into a `Run` and a `ClipSink`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ..errors import OutputError
from ..media.video.segments import segment_clips
from ..sampling.clip import Blend, Clip, ClipSampler
from ..sampling.drift import DriftLog
from ..sampling.long_video import remember, sample_clip
from ..sampling.memory_bank import MemoryBank
from ..sampling.steady import steady
from .disk_space import with_shortage
from .work import Work
from .work_folder import WorkFolder


class Decode(Protocol):
    """Frames of a clip: latents (1, f, c, h, w) -> (f, h, w, 3) uint8 on the CPU."""

    def __call__(self, latents: Tensor, clip: Clip) -> Tensor: ...


class Watcher:
    """Is told how a run goes on, and may stop it by an exception; this one does nothing."""

    def began(self, run: Run, clips: int, frames: int) -> None:
        """So many clips and frames of the plan are of earlier runs and will not come again."""

    def sampled(self, clip: Clip, drift: DriftLog) -> None:
        """A clip is sampled, scored and handed to the sink; the last one is in the result."""


class ClipSink(Protocol):
    """Takes the clips of a run as latents, in their order: decodes and writes them, or keeps them."""

    @property
    def held(self) -> int:
        """Frames, from the first on, that are safe already: nobody needs their latents any more."""

    def resume_at(self, frame: int) -> None:
        """Clips come again from some clip on that begins at or before this frame, which is `held` at the start."""

    def write(self, latents: Tensor, clip: Clip) -> None:
        """Shapes: latents (b, clip.count, c, h, w)."""

    def finish(self) -> None:
        """Wait until all that was written has arrived."""

    def close(self, partial: bool = False) -> None:
        """Complete the result. `partial`: fewer frames came than were planned."""

    def abort(self) -> None:
        """Drop what is not safe."""


@dataclass(kw_only=True)
class Run:
    """One video, or a part of it, to be made by either host.

    portrait: (b, c, h, w). `bank` remembers the clips before the plan, if there are any, and in the end all.
    `clip_frames`: of a whole clip. `fingerprint`: everything that the frames depend on, by names for people.
    `size`: height and width in pixels. `offset`: clips of the same video before the plan. `steady`: what is shown
    moves smoothly (`sampling.steady`), what is remembered is as sampled. `portrait_of`: that of a clip, in a video
    of several; the memory begins anew with it at clips whose indices are in `cuts`.
    """

    plan: list[Clip]
    portrait: Tensor
    bank: MemoryBank
    sample: ClipSampler
    clip_frames: int
    fps: float
    size: tuple[int, int]
    seed: int
    fingerprint: dict[str, Any] = field(default_factory=dict)
    watch: Watcher = field(default_factory=Watcher)
    drift: DriftLog = field(default_factory=DriftLog)
    offset: int = 0
    steady: bool = False
    portrait_of: Callable[[Clip], Tensor] | None = None
    cuts: frozenset[int] = frozenset()

    @property
    def frames(self) -> int:
        return sum(clip.count for clip in self.plan)

    @property
    def segment(self) -> int:
        """Clips after which the memory is saved: as many as are in a segment of the video."""
        return segment_clips(self.fps, self.clip_frames)


@dataclass
class Outcome:
    """What a run did: frames of the result so far, how many of them and clips are of earlier runs."""

    frames: int = 0
    resumed_frames: int = 0
    resumed_clips: int = 0
    interrupted: bool = False


def generate(run: Run, sink: ClipSink, work: Work | None = None) -> Outcome:
    """Make the video of `run`, as far as earlier runs have not, and close the sink.

    With a work folder, what is finished is safe there, and the same call continues after a kill. KeyboardInterrupt
    closes the sink with the frames so far, if there are any; any other error aborts it and passes on.
    Raises: ConfigError if the folder is another run's, OutputError, and what sampling and decoding raise.
    """
    work = work if work is not None else Work()
    with opened(run, sink, work) as outcome:
        try:
            run_clips(run, sink, work, outcome)
        except KeyboardInterrupt:
            sink.finish()
            if not outcome.frames:
                raise
            outcome.interrupted = True
        sink.close(partial=outcome.interrupted)
    return outcome


@contextmanager
def opened(run: Run, sink: ClipSink, work: Work) -> Iterator[Outcome]:
    """Inside the block the work folder is this run's; a block that fails aborts the sink."""
    outcome = Outcome()
    try:
        work.begin(run.fingerprint)
        yield outcome
    except BaseException as error:
        sink.abort()
        if isinstance(error, OutputError) and isinstance(work, WorkFolder):
            error = with_shortage(
                error,
                work.folder,
                frames=run.frames,
                held=sink.held,
                fps=run.fps,
                pixels=run.size[0] * run.size[1],
                segment_frames=run.clip_frames * run.segment,
                clip_frames=run.clip_frames,
                keep=work.keep,
            )
        work.leave()
        raise error
    work.end(interrupted=outcome.interrupted)


def run_clips(run: Run, sink: ClipSink, work: Work, outcome: Outcome, blend: Blend | None = None) -> None:
    """The clips of the plan, each conditioned on those before it: found in `work`, or sampled and saved there.

    `blend` is for one of the clips. `outcome` is kept up to date.
    """
    plan, origin = run.plan, run.plan[0].first
    outcome.frames = outcome.resumed_frames = sink.held
    sink.resume_at(sink.held)
    start = work.resume(run, sink.held)
    run.bank.start(run.portrait)
    outcome.resumed_clips = start
    run.watch.began(run, start, plan[start].first - origin)
    for done, clip in enumerate(plan[start:], start + 1):
        portrait = run.portrait if run.portrait_of is None else run.portrait_of(clip)
        if clip.index in run.cuts:
            run.bank.reset(portrait)
        latents = work.load(clip)
        if latents is not None:
            latents = latents.to(portrait)
            outcome.resumed_clips += 1
        else:
            latents = sample_clip(
                run.sample,
                clip,
                portrait,
                run.bank,
                clip_frames=run.clip_frames,
                seed=run.seed,
                blend=blend if blend is not None and blend.clip == clip else None,
            )
            work.save(clip, latents)
        shown = steady(latents, run.bank.latest) if run.steady else latents
        remember(run.bank, clip, latents, portrait, run.drift)
        sink.write(shown, clip)
        outcome.frames = max(outcome.frames, clip.first + clip.count - origin)
        work.checkpoint(run, done, sink.held)
        if done == len(plan):
            sink.finish()
        run.watch.sampled(clip, run.drift)
