"""The long-video loop: a plan of clips, noise for each, and the memory bank between them. The sampler is injected.

The loop owns order and memory; the caller owns sampling, decoding and stopping (docs/model.md, Memory bank).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError, NumericalError
from ..networks.transformer.conditions import Conditions
from ..protocols import ClipSampler
from .clip import seeded_generator
from .drift import DriftLog, drift_score
from .memory_bank import MemoryBank

__all__ = ["Clip", "clip_noise", "generate_clips", "plan_clips", "remember"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """One clip of the plan: video frames first .. first + count - 1. The last clip may be short."""

    index: int
    first: int
    count: int


def plan_clips(frames: int, clip_frames: int) -> list[Clip]:
    """Cut `frames` into clips; every frame is in exactly one. Raises: ConfigError unless both are > 0."""
    if frames < 1 or clip_frames < 1:
        raise ConfigError(f"frames={frames} and clip_frames={clip_frames} must both be > 0")
    firsts = range(0, frames, clip_frames)
    return [Clip(i, first, min(clip_frames, frames - first)) for i, first in enumerate(firsts)]


def clip_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Unit noise of clip `index`, the same on every machine and device. Shapes: -> shape, float32, on the CPU."""
    return torch.randn(shape, generator=seeded_generator(seed, index, "clip"))


def generate_clips(
    sample: ClipSampler,
    plan: Iterable[Clip],
    *,
    portrait: Tensor,
    audio: Callable[[int, int], Tensor],
    bank: MemoryBank,
    clip_frames: int,
    movement: Callable[[int, int], Tensor | None] | None = None,
    seed: int = 0,
    finished: Callable[[Clip], Tensor | None] | None = None,
    drift: DriftLog | None = None,
) -> Iterator[tuple[Clip, Tensor]]:
    """Yield (clip, clean latents) one by one, each clip conditioned on what the bank remembers of the ones before.

    A short last clip is sampled at the full length the model knows, and cut. `audio(first, count)` gives the
    tokens of those frames (it repeats the last frame beyond the end), as `movement` does for networks that are
    told it. A bank that is still empty starts from the portrait. `finished(clip)` may return latents of an earlier
    run; they are remembered and yielded instead of sampled. After a clip that scores below the bank's
    `drift_level`, the bank is re-anchored; this follows from the latents alone, so an earlier run's clips lead to
    the same. `drift` takes the scores.

    Shapes: portrait (b, c, h, w), audio tokens (b, clip_frames, k, d) -> latents (b, clip.count, c, h, w).
    Raises: NumericalError when a clip holds NaN or infinity; what the sampler raises passes through.
    """
    if bank.is_empty:
        bank.reset(portrait)
    bank.to(portrait.device)
    b, *rest = portrait.shape
    for clip in plan:
        latents = finished(clip) if finished is not None else None
        if latents is None:
            memory = bank.read().to(portrait.device)
            moves = movement(clip.first, clip_frames) if movement is not None else None
            heard = audio(clip.first, clip_frames)
            conditions = Conditions(portrait=portrait, audio=heard, memory=memory, movement=moves)
            noise = clip_noise(seed, clip.index, (b, clip_frames, *rest)).to(portrait.device)
            latents = sample(noise, conditions, clip_index=clip.index)[:, : clip.count]
        if not torch.isfinite(latents).all():
            raise NumericalError(
                f"clip {clip.index + 1} holds NaN or infinity; use float32 or lower guidance scales"
            )
        remember(bank, clip, latents, portrait, drift)
        yield clip, latents


def remember(
    bank: MemoryBank, clip: Clip, latents: Tensor, portrait: Tensor, drift: DriftLog | None = None
) -> None:
    """Write a clip to the bank, and re-anchor the bank if the clip scores below its `drift_level`.

    Arguments and errors as for `generate_clips` and `MemoryBank.write`.
    """
    bank.write(latents)
    if drift is None and bank.settings.drift_level <= 0:
        return
    score = drift_score(latents, portrait)
    low = score.lowest < bank.settings.drift_level
    if low:
        log.info("clip %d: %s: memory re-anchored", clip.index + 1, score)
        bank.re_anchor()
    if drift is not None:
        drift.add(clip.index, score, low)
