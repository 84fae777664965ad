"""One clip: what it is, what samples it, and the standalone sampler of a solver, its sigmas and guidance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor

from ..errors import NumericalError
from ..networks.transformer.conditions import Conditions
from .denoisers import ModelDenoiser
from .guidance import GuidedDenoiser, Scale, check_scales
from .solvers import STOCHASTIC, get_solver


def seeded_generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by all of `parts`; nearby numbers give unrelated streams."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))  # mt19937 reads 32 bits


@dataclass(frozen=True)
class Clip:
    """One clip of the plan: video frames first .. first + count - 1. The last clip may be short."""

    index: int
    first: int
    count: int


@dataclass(frozen=True)
class Blend:
    """Pulls the estimates of one clip to latents that are known: (b, f, c, h, w), by weights (f,) of 0 to 1.

    Applied in every step, the network makes the frames of low weight fit those of high weight.
    """

    clip: Clip
    latents: Tensor
    weights: Tensor

    def __call__(self, estimate: Tensor) -> Tensor:
        weights = rearrange(self.weights, "f -> 1 f 1 1 1")
        return torch.lerp(estimate, self.latents.to(estimate), weights.to(estimate))


class ClipSampler(Protocol):
    """Turns noise into the clean latents of one clip, given what the clips before it left in memory.

    Whoever needs more of a clip, such as its speech, cuts it by the frames of `clip`. With a `blend`, the latents
    are to follow on known ones; `blend` is applied to the result once more by the caller.
    Shapes: noise (b, f, c, h, w), memory (b, m, c, h, w) -> latents like noise.
    """

    def __call__(self, noise: Tensor, memory: Tensor, clip: Clip, blend: Blend | None = None) -> Tensor: ...


class ConditionedSampler(Protocol):
    """A ClipSampler that is given all conditions of the clip."""

    def __call__(
        self, noise: Tensor, conditions: Conditions, clip: Clip, blend: Blend | None = None
    ) -> Tensor: ...


def conditioned(sample: ConditionedSampler, conditions: Callable[[Tensor, Clip], Conditions]) -> ClipSampler:
    """A ClipSampler that looks up the conditions of each clip: `conditions(memory, clip)`."""

    def sample_clip(noise: Tensor, memory: Tensor, clip: Clip, blend: Blend | None = None) -> Tensor:
        return sample(noise, conditions(memory, clip), clip, blend)

    return sample_clip


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Scales of the two guided conditions; 1 costs nothing. Raises: ConfigError for scales that are no numbers."""

    audio: Scale = 1.0
    portrait: Scale = 1.0

    def __post_init__(self) -> None:
        check_scales(self.audio, self.portrait)


class SolverClipSampler:
    """Samples one clip: noise (b, f, c, h, w) and its conditions -> clean latents of the same shape, float32.

    `on_step(clip_index, step, steps)` is called before each step. `seed` feeds solvers that add noise as they go;
    these leave a `blend` to their caller.
    Raises: NumericalError naming clip and step as soon as the model returns NaN or infinity.
    """

    def __init__(
        self,
        denoiser: ModelDenoiser,
        solver: str,
        sigmas: Tensor,
        guidance: Guidance | None = None,
        *,
        seed: int = 0,
        on_step: Callable[[int, int, int], None] | None = None,
    ) -> None:
        guidance = guidance or Guidance()
        self.denoiser = denoiser
        self.guided = GuidedDenoiser(denoiser, guidance.audio, guidance.portrait, sigmas)
        self.name, self.solver, self.sigmas = solver, get_solver(solver), sigmas
        self.seed, self.on_step = seed, on_step

    def __call__(self, noise: Tensor, conditions: Conditions, clip: Clip, blend: Blend | None = None) -> Tensor:
        sigmas = self.sigmas.to(noise.device, torch.float32)
        steps = len(sigmas) - 1

        def check(state: dict[str, Any]) -> None:
            if not torch.isfinite(state["denoised"]).all():
                raise NumericalError(
                    f"the model returned NaN or infinity in clip {clip.index + 1}, step {state['i'] + 1} of"
                    f" {steps}; use float32 (--dtype float32) or lower guidance scales"
                )
            if self.on_step is not None:
                self.on_step(clip.index, state["i"], steps)

        options: dict[str, Any] = {}
        if self.name in STOCHASTIC:
            generator = seeded_generator(self.seed, clip.index, self.name)
            options["noise_sampler"] = lambda sigma, following: torch.randn(noise.shape, generator=generator).to(
                noise
            )
        denoiser: Callable[..., Tensor] = self.guided
        if blend is not None and self.name not in STOCHASTIC:
            denoiser = _blended(self.guided, blend)
        return self.solver(
            denoiser,
            self.denoiser.scale_noise(noise.float(), sigmas[0]),
            sigmas,
            extra_args={**conditions.tensors(), "cache": {}},  # what the network keeps over the steps of this clip
            callback=check,
            **options,
        )


def _blended(denoiser: Callable[..., Tensor], blend: Blend) -> Callable[..., Tensor]:
    def denoise(x: Tensor, sigma: Tensor, **extra_args: Any) -> Tensor:
        return blend(denoiser(x, sigma, **extra_args))

    return denoise
