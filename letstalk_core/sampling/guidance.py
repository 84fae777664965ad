"""Separate guidance scales for audio and portrait (docs/model.md, Diffusion).

    D = D(0,0) + s_p (D(p,0) - D(0,0)) + s_a (D(p,a) - D(p,0))
      = (1 - s_p) D(0,0) + (s_p - s_a) D(p,0) + s_a D(p,a)

The formula is linear, so it holds for the denoised sample as it does for the noise. A pass whose weight is 0 is
not run: scales of 1 cost one pass, equal scales two.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..protocols import Denoiser

__all__ = ["GuidedDenoiser", "check_scales", "combine_passes", "guidance_passes"]


def check_scales(audio: float, portrait: float) -> None:
    """Raises: ConfigError for guidance scales that are negative or no numbers."""
    for name, scale in (("audio", audio), ("portrait", portrait)):
        if not (math.isfinite(scale) and scale >= 0):
            raise ConfigError(f"{name} guidance scale {scale} must be a number >= 0; 1 is no guidance")


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
    like x. Null conditions are zeros; the memory is the same in every pass. Raises: ConfigError for scales that
    are no numbers.
    """

    def __init__(self, denoiser: Denoiser, audio_scale: float = 1.0, portrait_scale: float = 1.0) -> None:
        self.passes = guidance_passes(audio_scale, portrait_scale)
        self.denoiser = denoiser
        self.audio_scale, self.portrait_scale = audio_scale, portrait_scale
        self.prediction = getattr(denoiser, "prediction", None)
        if getattr(denoiser, "with_variance", None) is not None:
            self.with_variance = self._with_variance

    def _run(
        self, call: Any, x: Tensor, sigma: Tensor, portrait: Tensor, audio: Tensor, extra: dict[str, Any]
    ) -> list[Tensor | tuple[Tensor, Tensor]]:
        """Outputs of `call`, one per pass, from one call over the concatenated batch."""
        n, b = len(self.passes), x.shape[0]
        if n == 1 and self.passes[0][:2] == (True, True):
            return [call(x, sigma, portrait=portrait, audio=audio, **extra)]
        extra = {
            k: torch.cat([v] * n) if isinstance(v, Tensor) and v.ndim and v.shape[0] == b else v
            for k, v in extra.items()
        }
        output = call(
            torch.cat([x] * n),
            torch.cat([sigma] * n),
            portrait=torch.cat([portrait if p else torch.zeros_like(portrait) for p, _, _ in self.passes]),
            audio=torch.cat([audio if a else torch.zeros_like(audio) for _, a, _ in self.passes]),
            **extra,
        )
        if isinstance(output, tuple):
            return list(zip(*(part.chunk(n) for part in output), strict=True))
        return list(output.chunk(n))

    def _combine(self, parts: list[Tensor]) -> Tensor:
        return combine_passes(parts, [weight for _, _, weight in self.passes])

    def __call__(self, x: Tensor, sigma: Tensor, *, portrait: Tensor, audio: Tensor, **extra: Any) -> Tensor:
        return self._combine(self._run(self.denoiser, x, sigma, portrait, audio, extra))  # type: ignore[arg-type]

    def _with_variance(
        self, x: Tensor, sigma: Tensor, *, portrait: Tensor, audio: Tensor, **extra: Any
    ) -> tuple[Tensor, Tensor]:
        """Guided sample; the variance is that of the pass with the most conditions, which comes first."""
        call = self.denoiser.with_variance  # type: ignore[attr-defined]
        parts = self._run(call, x, sigma, portrait, audio, extra)
        return self._combine([part[0] for part in parts]), parts[0][1]
