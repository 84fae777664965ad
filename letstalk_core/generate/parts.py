"""Parts of one long video that can be made at the same time, each from the portrait's memory.

A part begins in a pause of the speech. A clip before it is made, too, and dropped: after it head and eyes are
where the part before has them, because their movement is told for every frame. All else that a frame depends on,
such as the states of its speech, is that of the whole video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from ..media.audio.alignment import frame_count
from ..media.audio.decode import Sound, as_source
from ..media.audio.pauses import cut_at_pauses
from ..sampling.clip import Clip
from ..sampling.drift import DriftLog
from ..sampling.long_video import plan_clips
from .run import Outcome, Run, Watcher, run_clips
from .sinks import LatentSink
from .work import Work

RUN_UP = 1  # clips


@dataclass(frozen=True)
class Part:
    """Frames first .. first + count - 1 of a video; `number` counts the parts from 0."""

    number: int
    first: int
    count: int


def find_parts(sound: Sound, fps: float, seconds: float) -> list[Part]:
    """Parts of about `seconds`, or a single one where the speech is short or has no pause. Raises: MediaError."""
    source = as_source(sound)
    cuts = [*cut_at_pauses(source, fps, seconds), frame_count(source.seconds, fps)]
    return [Part(number, first, last - first) for number, (first, last) in enumerate(pairwise(cuts))]


def plan_part(part: Part, clip_frames: int) -> list[Clip]:
    """The clips of a part; no two of a video have the same index, which seeds their noise."""
    index = part.first // clip_frames + part.number
    plan = plan_clips(part.count, clip_frames)
    return [Clip(index + clip.index, part.first + clip.first, clip.count) for clip in plan]


def first_heard(part: Part, clip_frames: int, window: int) -> int:
    """The first frame of the speech that a part needs, with `window` frames of speech around each frame."""
    return max(0, _before(part, clip_frames)[0].first - window // 2)


def run_up(run: Run, part: Part) -> None:
    """Let the bank of a part's run remember the clips before it. Raises: what sampling raises."""
    clips = _before(part, run.clip_frames)[:-1]
    if clips:
        run_clips(replace(run, plan=clips, watch=Watcher(), drift=DriftLog()), LatentSink(), Work(), Outcome())


def _before(part: Part, clip_frames: int) -> list[Clip]:
    """The clips to run up, as many as there are and at most `RUN_UP`, and the first of the part."""
    first = plan_part(part, clip_frames)[0]
    count = min(RUN_UP, part.first // clip_frames)
    before = [Clip(first.index - n, first.first - n * clip_frames, clip_frames) for n in range(count, 0, -1)]
    return [*before, first]
