"""Separate guidance scales for audio and portrait (docs/model.md, Diffusion).

    D = D(0,0) + s_p (D(p,0) - D(0,0)) + s_a (D(p,a) - D(p,0))
      = (1 - s_p) D(0,0) + (s_p - s_a) D(p,0) + s_a D(p,a)

The formula is linear, so it holds for the denoised sample as it does for the noise. A pass whose weight is 0 is
not run: scales of 1 cost one pass, equal scales two.

A scale may change over the steps: its values are spread evenly over them, in straight lines between; as many as
there are steps are one a step. Source: Wang et al. 2024, arXiv 2404.13040 (schedules of guidance).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Union

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..protocols import Denoiser

Scale = Union[float, tuple[float, ...]]  # the same in all steps, or values spread over them


def as_scale(value: Any) -> Scale:
    """A scale out of a number, an iterable of them, or text: "1.6", or "1.6:1.0" from the first step to the last.

    Raises: ConfigError.
    """
    parts = value.replace(",", ":").split(":") if isinstance(value, str) else value
    try:
        scales = tuple(map(float, parts)) if isinstance(parts, Iterable) else (float(parts),)
    except (TypeError, ValueError):
        scales = ()
    if not scales:
        raise ConfigError(
            f"guidance scale {value!r}: needs a number, or numbers from the first step to the last as in 1.6:1.0"
        )
    return scales if len(scales) > 1 else scales[0]


def check_scales(audio: Scale, portrait: Scale) -> None:
    """Raises: ConfigError for guidance scales that are negative or no numbers."""
    for name, given in (("audio", audio), ("portrait", portrait)):
        for scale in given if isinstance(given, tuple) else (given,):
            if not (math.isfinite(scale) and scale >= 0):
                raise ConfigError(f"{name} guidance scale {scale} must be a number >= 0; 1 is no guidance")


def scales_at(scales: tuple[Scale, Scale], sigma: Tensor, sigmas: Tensor) -> tuple[float, float]:
    """Both scales at a noise level, (b,) all the same, of a run over `sigmas` (steps + 1,).

    Between two levels, where solvers of higher order look, they lie between those of the two steps.
    """
    first, second = scales
    if not isinstance(first, tuple) and not isinstance(second, tuple):
        return first, second  # nothing is fetched from the device
    levels = -sigmas.double().cpu().numpy()
    step = float(np.interp(-float(sigma.flatten()[0]), levels, np.arange(len(levels))))
    last = max(len(levels) - 2, 0)
    return _at(first, step, last), _at(second, step, last)


def _at(scale: Scale, step: float, last: int) -> float:
    if not isinstance(scale, tuple):
        return scale
    place = min(step, last) * (len(scale) - 1) / max(last, 1)  # exact where there is one value a step
    before = min(int(place), len(scale) - 2)
    return scale[before] + (place - before) * (scale[before + 1] - scale[before])


def guidance_passes(audio_scale: float, portrait_scale: float) -> list[tuple[bool, bool, float]]:
    """The passes to run, as (keep portrait, keep audio, weight); weights sum to 1. Raises: ConfigError."""
    check_scales(audio_scale, portrait_scale)
    weights = {
        (True, True): audio_scale,
        (True, False): portrait_scale - audio_scale,
        (False, False): 1 - portrait_scale,
    }
    return [(*kept, weight) for kept, weight in weights.items() if weight]


def combine_passes(parts: list[Tensor], weights: list[float]) -> Tensor:
    """Weighted sum of what the passes returned; a single pass is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    total = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=True):
        total = total + weight * part
    return total


class GuidedDenoiser:
    """A denoiser that guides another one; all passes it needs run as one batch.

    Shapes: x (b, f, c, h, w), sigma (b,), portrait (b, c, h, w), memory (b, m, c, h, w), audio (b, f, k, d) ->
    like x. Null conditions are zeros; the memory is the same in every pass. `sigmas` (steps + 1,) are those of the
    run, for scales that change. Raises: ConfigError for scales that are no numbers.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        audio_scale: Scale = 1.0,
        portrait_scale: Scale = 1.0,
        sigmas: Tensor | None = None,
    ) -> None:
        check_scales(audio_scale, portrait_scale)
        self.denoiser = denoiser
        self.scales = (audio_scale, portrait_scale)
        self.sigmas = sigmas if sigmas is not None else torch.ones(2)
        self.prediction = getattr(denoiser, "prediction", None)
        if getattr(denoiser, "with_variance", None) is not None:
            self.with_variance = self._with_variance

    def _run(
        self, call: Any, x: Tensor, sigma: Tensor, portrait: Tensor, audio: Tensor, extra: dict[str, Any]
    ) -> tuple[list[Any], list[float]]:
        """Outputs of `call`, one per pass, from one call over the concatenated batch; and their weights."""
        passes = guidance_passes(*scales_at(self.scales, sigma, self.sigmas))
        weights = [weight for _, _, weight in passes]
        n, b = len(passes), x.shape[0]
        if isinstance(extra.get("cache"), dict):  # other passes than in the step before are other conditions
            extra = {**extra, "cache": extra["cache"].setdefault(tuple(kept[:2] for kept in passes), {})}
        if n == 1 and passes[0][:2] == (True, True):
            return [call(x, sigma, portrait=portrait, audio=audio, **extra)], weights
        extra = {
            k: torch.cat([v] * n) if isinstance(v, Tensor) and v.ndim and v.shape[0] == b else v
            for k, v in extra.items()
        }
        output = call(
            torch.cat([x] * n),
            torch.cat([sigma] * n),
            portrait=torch.cat([portrait if p else torch.zeros_like(portrait) for p, _, _ in passes]),
            audio=torch.cat([audio if a else torch.zeros_like(audio) for _, a, _ in passes]),
            **extra,
        )
        if isinstance(output, tuple):
            return list(zip(*(part.chunk(n) for part in output), strict=True)), weights
        return list(output.chunk(n)), weights

    def __call__(self, x: Tensor, sigma: Tensor, *, portrait: Tensor, audio: Tensor, **extra: Any) -> Tensor:
        return combine_passes(*self._run(self.denoiser, x, sigma, portrait, audio, extra))

    def _with_variance(
        self, x: Tensor, sigma: Tensor, *, portrait: Tensor, audio: Tensor, **extra: Any
    ) -> tuple[Tensor, Tensor]:
        """Guided sample; the variance is that of the pass with the most conditions, which comes first."""
        call = self.denoiser.with_variance  # type: ignore[attr-defined]
        parts, weights = self._run(call, x, sigma, portrait, audio, extra)
        return combine_passes([part[0] for part in parts], weights), parts[0][1]
