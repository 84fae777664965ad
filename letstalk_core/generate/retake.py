"""Another take of some seconds of a finished video; everything outside them stays byte for byte.

The new clips remember the ones before them as any clip does. The last of them is drawn to the old one towards its
end, so that what follows, which remembers the old one, follows on it. Whole segments of the video are made anew,
because frames of a segment are encoded together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..errors import ConfigError
from ..protocols import ClipSampler, DrawnSampler
from ..sampling.drift import DriftLog
from ..sampling.long_video import Clip, generate_clips, remember
from ..sampling.memory_bank import MemoryBank
from .takes import open_take, take_folder
from .work_folder import WorkFolder, save_latents

__all__ = ["BLEND_SECONDS", "Take", "blend_weights", "plan_take", "retake_details", "take_clips"]

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


def take_clips(
    work: WorkFolder,
    plan: list[Clip],
    take: Take,
    *,
    sample: ClipSampler,
    portrait: Tensor,
    audio: Callable[[int, int], Tensor],
    bank: MemoryBank,
    clip_frames: int,
    fps: float,
    movement: Callable[[int, int], Tensor | None] | None = None,
    drift: DriftLog | None = None,
) -> Iterator[tuple[Clip, Tensor]]:
    """Yield (clip, latents) of the take and keep them in its folder; those found there are not made again.

    `bank` is one for the start of the plan. Arguments as for `generate_clips`.
    Raises: ConfigError if the work folder lacks latents that are needed.
    """
    if bank.is_empty:
        bank.reset(portrait)
    for clip in plan[: take.first]:
        remember(bank, clip, _kept(work, clip), portrait)
    bank.seed = take.seed
    part = plan[take.first : take.last + 1]
    old = _kept(work, part[-1])
    open_take(work.folder, take.to_dict())
    beside = WorkFolder(take_folder(work.folder))
    weights = blend_weights(part[-1].count, fps) if take.last + 1 < len(plan) else None
    if weights is not None and isinstance(sample, DrawnSampler):
        sample.towards[part[-1].index] = (old, weights)
    loaded: set[int] = set()

    def finished(clip: Clip) -> Tensor | None:
        latents = beside.load(clip)
        if latents is not None:
            loaded.add(clip.index)
        return latents

    def blended(noise: Tensor, conditions: Any, *, clip_index: int) -> Tensor:
        latents = sample(noise, conditions, clip_index=clip_index)
        if weights is not None and clip_index == part[-1].index:
            latents = torch.lerp(latents, old.to(latents), rearrange(weights, "f -> 1 f 1 1 1").to(latents))
        return latents

    clips = generate_clips(
        blended,
        part,
        portrait=portrait,
        audio=audio,
        bank=bank,
        clip_frames=clip_frames,
        movement=movement,
        seed=take.seed,
        finished=finished,
        drift=drift,
    )
    for clip, latents in clips:
        if clip.index not in loaded:
            save_latents(beside.clip_path(clip), latents)
        yield clip, latents


def _kept(work: WorkFolder, clip: Clip) -> Tensor:
    latents = work.load(clip)
    if latents is None:
        raise ConfigError(
            f"{work.folder}: lacks the latents of clip {clip.index + 1}; a part can be made anew only of a video"
            " that was made with --keep-work"
        )
    return latents
