"""A video of any length: a plan of clips, noise for each, and the memory bank between them (docs/model.md)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..errors import ConfigError, NumericalError
from .clip import Blend, Clip, ClipSampler, seeded_generator
from .drift import DriftLog, drift_score
from .memory_bank import MemoryBank

log = logging.getLogger(__name__)


def plan_clips(frames: int, clip_frames: int) -> list[Clip]:
    """Cut `frames` into clips; every frame is in exactly one. Raises: ConfigError unless both are > 0."""
    if frames < 1 or clip_frames < 1:
        raise ConfigError(f"frames={frames} and clip_frames={clip_frames} must both be > 0")
    firsts = range(0, frames, clip_frames)
    return [Clip(i, first, min(clip_frames, frames - first)) for i, first in enumerate(firsts)]


def clip_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Unit noise of clip `index`, the same on every machine and device. Shapes: -> shape, float32, on the CPU."""
    return torch.randn(shape, generator=seeded_generator(seed, index, "clip"))


def sample_clip(
    sample: ClipSampler,
    clip: Clip,
    portrait: Tensor,
    bank: MemoryBank,
    *,
    clip_frames: int,
    seed: int = 0,
    blend: Blend | None = None,
) -> Tensor:
    """Clean latents of a clip that follows on what `bank` remembers.

    A short last clip is sampled at the full length the model knows, and cut.
    Shapes: portrait (b, c, h, w) -> latents (b, clip.count, c, h, w).
    Raises: NumericalError when they hold NaN or infinity; what the sampler raises passes through.
    """
    b, *rest = portrait.shape
    noise = clip_noise(seed, clip.index, (b, clip_frames, *rest)).to(portrait.device)
    latents = sample(noise, bank.read().to(portrait.device), clip, blend)[:, : clip.count]
    if blend is not None:
        latents = blend(latents)
    if not torch.isfinite(latents).all():
        raise NumericalError(f"clip {clip.index + 1} holds NaN or infinity; use float32 or lower guidance scales")
    return latents


def remember(
    bank: MemoryBank, clip: Clip, latents: Tensor, portrait: Tensor, drift: DriftLog | None = None
) -> None:
    """Write a clip to the bank, and re-anchor the bank if the clip scores below its `drift_level`.

    This follows from the latents alone, so clips of an earlier run lead to the same. `drift` takes the scores.
    Errors as for `MemoryBank.write`.
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


def generate_clips(
    sample: ClipSampler,
    plan: Iterable[Clip],
    *,
    portrait: Tensor,
    bank: MemoryBank,
    clip_frames: int,
    seed: int = 0,
    drift: DriftLog | None = None,
) -> Iterator[tuple[Clip, Tensor]]:
    """Yield (clip, clean latents) one by one, each clip conditioned on what the bank remembers of the ones before.

    A bank that is still empty starts from the portrait. The bare loop; `generate.run` is the one that writes a
    video and can be continued. Shapes and errors as for `sample_clip`.
    """
    bank.start(portrait)
    for clip in plan:
        latents = sample_clip(sample, clip, portrait, bank, clip_frames=clip_frames, seed=seed)
        remember(bank, clip, latents, portrait, drift)
        yield clip, latents
