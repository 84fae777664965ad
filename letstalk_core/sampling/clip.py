"""The standalone clip sampler: a solver, its sigmas and guidance behind the `ClipSampler` interface."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..errors import NumericalError
from .denoisers import ModelDenoiser
from .guidance import GuidedDenoiser, check_scales
from .solvers import STOCHASTIC, get_solver

__all__ = ["Guidance", "SolverClipSampler", "seeded_generator"]


def seeded_generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by all of `parts`; nearby numbers give unrelated streams."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))  # mt19937 reads 32 bits


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Scales of the two guided conditions; 1 costs nothing. Raises: ConfigError for scales that are no numbers."""

    audio: float = 1.0
    portrait: float = 1.0

    def __post_init__(self) -> None:
        check_scales(self.audio, self.portrait)


class SolverClipSampler:
    """Samples one clip: noise (b, f, c, h, w) and its conditions -> clean latents of the same shape, float32.

    `on_step(clip_index, step, steps)` is called before each step. `seed` feeds solvers that add noise as they go.
    `towards` may hold, by clip, latents (b, f, c, h, w) and for each frame (f,) how much the clean sample is drawn
    to them in every step: 1 is them. Solvers that add noise leave it to their caller to blend.
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
        self.guided = GuidedDenoiser(denoiser, guidance.audio, guidance.portrait)
        self.name, self.solver, self.sigmas = solver, get_solver(solver), sigmas
        self.seed, self.on_step = seed, on_step
        self.towards: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, noise: Tensor, conditions: Any, *, clip_index: int) -> Tensor:
        sigmas = self.sigmas.to(noise.device, torch.float32)
        steps = len(sigmas) - 1

        def check(state: dict[str, Any]) -> None:
            if not torch.isfinite(state["denoised"]).all():
                raise NumericalError(
                    f"the model returned NaN or infinity in clip {clip_index + 1}, step {state['i'] + 1} of"
                    f" {steps}; use float32 (--dtype float32) or lower guidance scales"
                )
            if self.on_step is not None:
                self.on_step(clip_index, state["i"], steps)

        arguments = conditions.tensors()
        options: dict[str, Any] = {}
        if self.name in STOCHASTIC:
            generator = seeded_generator(self.seed, clip_index, self.name)
            options["noise_sampler"] = lambda sigma, following: torch.randn(noise.shape, generator=generator).to(
                noise
            )
        denoiser: Callable[..., Tensor] = self.guided
        if clip_index in self.towards and self.name not in STOCHASTIC:
            denoiser = _drawn(self.guided, *self.towards[clip_index])
        return self.solver(
            denoiser,
            self.denoiser.scale_noise(noise.float(), sigmas[0]),
            sigmas,
            extra_args={**arguments, "cache": {}},  # what the network keeps from step to step of this clip
            callback=check,
            **options,
        )


def _drawn(denoiser: Callable[..., Tensor], latents: Tensor, weights: Tensor) -> Callable[..., Tensor]:
    """A denoiser whose estimate is partly given, frame by frame; the network makes the other frames fit."""
    weights = rearrange(weights, "f -> 1 f 1 1 1")

    def drawn(x: Tensor, sigma: Tensor, **extra_args: Any) -> Tensor:
        denoised = denoiser(x, sigma, **extra_args)
        return torch.lerp(denoised, latents.to(denoised), weights.to(denoised))

    return drawn
