"""A GUIDER with separate audio and portrait scales, and the sigmas that belong to a MODEL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.sampling.guidance import (
    Scale,
    as_scale,
    check_scales,
    combine_passes,
    guidance_passes,
    scales_at,
)
from ...letstalk_core.sampling.schedules import default_steps, make_sigmas
from .conditions import check_conditioning
from .model import letstalk_model

OWN_SCHEDULES = ("model", "karras")
NAMES = {(True, True): "positive", (True, False): "portrait", (False, False): "negative"}  # kept portrait, audio


class LetsTalkGuider(comfy.samplers.CFGGuider):
    """Guides with the formula of core's GuidedDenoiser; the passes it needs run as one batch.

    CFG functions that other nodes put on the MODEL get the full pass as cond, and as uncond the pass without
    audio (without both where the scales are equal), with audio_scale as their scale.
    """

    audio_scale: Scale = 1.0
    portrait_scale: Scale = 1.0

    def set_positive(self, positive: Sequence[Any]) -> None:
        """Conditions of the three passes out of a CONDITIONING. Raises: ConfigError."""
        check_conditioning(positive)
        portrait = [[slot, {**values, "letstalk_audio_gain": 0.0}] for slot, values in positive]
        nothing = [[slot, {**values, "letstalk_portrait_gain": 0.0}] for slot, values in portrait]
        self.inner_set_conds({"positive": positive, "portrait": portrait, "negative": nothing})

    def set_scales(self, audio: Scale, portrait: Scale) -> None:
        """Scales of both guidances; 1 is none and costs nothing. Raises: ConfigError."""
        check_scales(audio, portrait)
        self.audio_scale, self.portrait_scale = audio, portrait
        self.set_cfg(audio[0] if isinstance(audio, tuple) else audio)  # newer cores show it

    def _scales(self, timestep: Tensor, options: dict[str, Any]) -> tuple[float, float]:
        sigmas = options.get("transformer_options", {}).get("sample_sigmas", timestep)
        return scales_at((self.audio_scale, self.portrait_scale), timestep, sigmas)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        options = model_options or {}
        if "sampler_cfg_function" in options or options.get("sampler_post_cfg_function"):
            return self._hooked(x, timestep, options)
        passes = guidance_passes(*self._scales(timestep, options))
        parts = self._run([NAMES[portrait, audio] for portrait, audio, _ in passes], x, timestep, options)
        return combine_passes(list(parts.values()), [weight for _, _, weight in passes])

    def _run(self, names: list[str], x: Tensor, timestep: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        conds = [self.conds[name] for name in names]
        outputs = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, options)
        return dict(zip(names, outputs, strict=True))

    def _hooked(self, x: Tensor, timestep: Tensor, options: dict[str, Any]) -> Tensor:
        """The same sum, its audio part through ComfyUI's CFG function, which calls what other nodes set."""
        audio, portrait = self._scales(timestep, options)
        weights = {NAMES[p, a]: weight for p, a, weight in guidance_passes(audio, portrait)}
        names = ["positive", *(name for name in weights if name != "positive")]
        parts = self._run(names, x, timestep, options)
        base = "negative" if audio == portrait else "portrait"
        guided: Tensor = comfy.samplers.cfg_function(
            self.inner_model,
            parts["positive"],
            parts.get(base, torch.zeros_like(x)),  # not run where both scales are 1: it then has no weight
            audio,
            x,
            timestep,
            model_options=options,
            cond=self.conds["positive"],
            uncond=self.conds[base] if base in parts else None,
        )
        if base == "portrait" and "negative" in parts:
            guided = guided + (portrait - 1) * (parts["portrait"] - parts["negative"])
        return guided


def make_guider(model: Any, positive: Any, audio_scale: Any = 0.0, portrait_scale: Any = 1.0) -> LetsTalkGuider:
    """The GUIDER of a MODEL and the CONDITIONING of LetsTalk Conditioning; an audio scale of 0 is the model's own.

    Scales are numbers, or lists of them as other nodes send over a FLOAT wire. Raises: ConfigError.
    """
    own = letstalk_model(model).dit_config.audio_guidance
    guider = LetsTalkGuider(model)
    guider.set_positive(positive)
    audio = as_scale(audio_scale)
    audio = tuple(scale or own for scale in audio) if isinstance(audio, tuple) else audio or own
    guider.set_scales(audio, as_scale(portrait_scale))
    return guider


def schedule_names() -> list[str]:
    """Schedules that `make_model_sigmas` knows: the standalone ones, then ComfyUI's."""
    return [*OWN_SCHEDULES, *(name for name in comfy.samplers.SCHEDULER_NAMES if name not in OWN_SCHEDULES)]


def make_model_sigmas(model: Any, steps: int, schedule: str = "model", shift: float = 0.0) -> Tensor:
    """Sigmas of the standalone pipeline, or of a ComfyUI scheduler, for a MODEL; (steps + 1,) float32 on the CPU.

    steps: 0 is the model's own number. shift: of flow models with the schedule "model"; 0 is the MODEL's own,
    which ModelSamplingSD3 changes. Raises: ConfigError.
    """
    config = letstalk_model(model).dit_config
    prediction, steps = config.prediction, steps or default_steps(config)
    if schedule not in schedule_names():
        raise ConfigError(f"schedule: {schedule!r} is unknown; choose one of {', '.join(schedule_names())}")
    sampling = model.get_model_object("model_sampling")
    if schedule in OWN_SCHEDULES:
        own = float(getattr(sampling, "shift", 1.0)) if prediction == "flow" else 1.0
        return make_sigmas(prediction, steps, shift or own, schedule=schedule)
    if shift:
        raise ConfigError(f"shift: {shift} is read by the schedule 'model' only; set it to 0 for {schedule!r}")
    sigmas: Tensor = comfy.samplers.calculate_sigmas(sampling, schedule, steps)
    return sigmas.float().cpu()
