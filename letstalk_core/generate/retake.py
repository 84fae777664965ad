"""Another take of some seconds of a finished video; everything outside them stays byte for byte.

The new clips remember the ones before them as any clip does. The last of them is drawn to the old one towards its
end, so that what follows, which remembers the old one, follows on it. Whole segments of the video are regenerated,
because frames of a segment are encoded together.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..media.video.segments import SegmentedVideo, segment_path
from ..sampling.clip import Blend, Clip, ClipSampler
from ..sampling.drift import DriftLog
from ..sampling.long_video import remember
from ..sampling.memory_bank import MemoryBank
from .run import ClipSink, Decode, Outcome, Run, Watcher, opened, run_clips
from .takes import open_take, take_folder
from .work_folder import WorkFolder

BLEND_SECONDS = 0.32


@dataclass(frozen=True, kw_only=True)
class Take:
    """Clips `first` .. `last` of a plan, in whole segments: the seconds they are, and the seed of their noise."""

    first: int
    last: int
    seed: int
    seconds: tuple[float, float]
    number: int = 1  # 1 is the first take after the original

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": list(self.seconds)}


def plan_take(
    plan: list[Clip], fps: float, segment: int, begin: float, end: float, seed: int, takes: list[Any]
) -> Take:
    """The take of seconds `begin` to `end`, extended to segments of `segment` clips. The very last one of `takes`
    is given back when it is asked for again. Raises: ConfigError."""
    seconds = (plan[-1].first + plan[-1].count - plan[0].first) / fps
    if not (0 <= begin < end and begin < seconds):
        raise ConfigError(f"retake from {begin:g} to {end:g} s: needs 0 <= from < to, within {seconds:.2f} s")
    frames = plan[0].count * segment
    first = math.floor(begin * fps / frames + 1e-6) * segment
    last = min(math.ceil(end * fps / frames - 1e-6) * segment, len(plan)) - 1
    ends = (plan[first].first, plan[last].first + plan[last].count)
    exact = tuple(round((frame - plan[0].first) / fps, 3) for frame in ends)
    take = Take(first=first, last=last, seed=seed, seconds=(exact[0], exact[1]), number=len(takes) + 1)
    same = replace(take, number=len(takes))
    return same if takes and same.to_dict() == takes[-1] else take


def retake_details(takes: list[Any]) -> list[dict[str, Any]]:
    """What a video says of the takes in it, the latest last: seconds of the video, and the seed of their noise."""
    return [{k: take[k] for k in ("seconds", "seed") if k in take} for take in takes if isinstance(take, dict)]


def blend_weights(frames: int, fps: float) -> Tensor:
    """How much of the old take each frame of the last clip is: 0, and rising to 1 at its end. (frames,)"""
    ramp = min(frames, max(1, round(BLEND_SECONDS * fps)))
    return torch.cat([torch.zeros(frames - ramp), torch.arange(1, ramp + 1) / ramp])


@dataclass(frozen=True, kw_only=True)
class Retake:
    """Another take of `seconds`, from and to, with other noise: `sample` is what samples with that `seed`.

    `video` is what the folder holds, and `decode` makes its frames. `watch` follows the new clips.
    `remedy`: what to do if the video is not finished yet, in the words of the host.
    """

    seconds: tuple[float, float]
    seed: int
    sample: ClipSampler
    video: SegmentedVideo
    decode: Decode
    watch: Watcher
    remedy: str = "finish the video first"


def retake(run: Run, sink: ClipSink, work: WorkFolder, again: Retake) -> list[Clip]:
    """Make the clips of another take, put them where the old ones were, and make the video of all of them again.

    `run`, `sink` and `work` are those of the finished video, which needs nothing but to be joined then. Killed at
    any moment, the same call continues, and until it ends the video is the old one. Returns the clips of the take.
    Raises: ConfigError if the folder is not complete, and what `generate` raises.
    """
    with opened(run, sink, work) as outcome:
        video, takes = again.video, work.takes
        if video.held != run.frames:
            raise ConfigError(f"{work.folder}: holds {video.held} of {run.frames} frames; {again.remedy}")
        take = plan_take(run.plan, run.fps, run.segment, *again.seconds, again.seed, takes)
        part = run.plan[take.first : take.last + 1]
        if take.number > len(takes):
            open_take(work.folder, take.to_dict())
            beside = WorkFolder(take_folder(work.folder), keep=True)
            new = replace(
                run,
                plan=part,
                offset=take.first,
                bank=_memory_before(run, work, take),
                sample=again.sample,
                seed=take.seed,
                watch=again.watch,
                drift=DriftLog(),
            )
            old = _kept(work, part[-1])  # the clip after it remembers it as it was
            blend = Blend(part[-1], old, blend_weights(part[-1].count, run.fps))
            follows = take.last + 1 < len(run.plan)
            run_clips(new, SegmentSink(new, again, beside.folder), beside, Outcome(), blend if follows else None)
            work.finish_take()
        run_clips(run, sink, work, outcome)
        sink.close()
    return part


class SegmentSink:
    """A ClipSink that writes the segments of a part of a video, whole ones, to a folder."""

    held = 0

    def __init__(self, run: Run, again: Retake, folder: Path) -> None:
        self.run, self.again, self.folder = run, again, folder
        self._frames: list[Tensor] = []

    def resume_at(self, frame: int) -> None:
        """The first clip comes first in any case."""

    def write(self, latents: Tensor, clip: Clip) -> None:
        self._frames.append(self.again.decode(latents, clip))
        done = clip.index - self.run.plan[0].index + 1
        if done % self.run.segment == 0 or done == len(self.run.plan):
            index = (self.run.offset + done - 1) // self.run.segment
            self.again.video.write_segment(segment_path(self.folder, index), torch.cat(self._frames))
            self._frames = []

    def finish(self) -> None: ...

    def close(self, partial: bool = False) -> None: ...

    def abort(self) -> None: ...


def _memory_before(run: Run, work: WorkFolder, take: Take) -> MemoryBank:
    """A bank that remembers the clips before a take, with the noise of the take."""
    bank = copy.deepcopy(run.bank)
    bank.start(run.portrait)
    for clip in run.plan[: take.first]:
        remember(bank, clip, _kept(work, clip).to(run.portrait), run.portrait)
    bank.seed = take.seed
    return bank


def _kept(work: WorkFolder, clip: Clip) -> Tensor:
    latents = work.load(clip)
    if latents is None:
        raise ConfigError(
            f"{work.folder}: lacks the latents of clip {clip.index + 1}; a part can be made anew only of a video"
            " that was made with --keep-work"
        )
    return latents
