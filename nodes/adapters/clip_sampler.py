"""Core's clip sampler on top of ComfyUI: any GUIDER, SAMPLER and SIGMAS; nothing that is cached is changed."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from einops import rearrange
from torch import Tensor

from ...letstalk_core.errors import ConfigError, NumericalError
from ...letstalk_core.sampling.clip import seeded_generator
from .dit import CACHE_OPTION, TOKENS_KEY, CacheStore
from .progress import check_interrupt

__all__ = ["ComfyClipSampler", "check_guider", "default_sampler"]

Inspect = Callable[[Tensor, int], "str | None"]
REMEDY = (
    "use weight_dtype `default` in Load DiT, lower audio_scale and portrait_scale, and check LoRA files and model"
    " patches"
)

log = logging.getLogger(__name__)


class _BadLatents(Exception):
    """NaN or infinity in a step; leaves the sampler's loop at once."""


def default_sampler(prediction: str) -> Any:
    """The SAMPLER for a network that predicts this, as in the standalone pipeline; the paper's ancestral DDPM has
    no counterpart among ComfyUI's samplers, so its models are sampled with DPM++ 2M on the predicted mean."""
    return comfy.samplers.sampler_object("euler" if prediction == "flow" else "dpmpp_2m")


def check_guider(guider: Any) -> dict[str, list[dict[str, Any]]]:
    """The conditions of a GUIDER by name. Raises: ConfigError for an object that works in another way."""
    conds = getattr(guider, "original_conds", None)
    if not isinstance(conds, dict) or not hasattr(guider, "model_patcher"):
        raise ConfigError(
            f"guider: is a {type(guider).__name__} without conditions; use LetsTalk Guider, CFGGuider or"
            " DualCFGGuider"
        )
    return conds


class ComfyClipSampler:
    """A core ClipSampler: noise (b, f, c, h, w) and a clip's conditions -> clean latents, float32, on the CPU.

    Of the conditions, `memory` (b, m, c, h, w) and `audio` (the clip's first frame, a whole number) go into a
    copy of the guider; portrait and speech are there already. `seed` feeds samplers that add noise as they go,
    differently for each clip, and moves head and eyes unless there is a `movement_seed`. A NOISE object replaces
    the noise it is given. `on_step(clip_index, step, denoised)`
    is called after each step. `inspect(latents, clip_index)` returns what is wrong with finished latents, or None.
    `clip_name(clip_index)` is what people call a clip. `towards` is as in `protocols.DrawnSampler`: the estimates
    of every step are drawn to given latents, whatever the sampler. A bad clip is sampled again in float32 with
    plain attention; the next is tried as it comes, so that a resumed run samples each clip as an unbroken one.
    Raises: NumericalError naming clip and cause when a clip stays bad; ComfyUI's InterruptProcessingException.
    """

    def __init__(
        self,
        guider: Any,
        sampler: Any,
        sigmas: Tensor,
        *,
        seed: int,
        noise: Any = None,
        on_step: Callable[[int, int, Tensor], None] | None = None,
        inspect: Inspect | None = None,
        clip_name: Callable[[int], str] = lambda index: f"clip {index + 1}",
        movement_seed: int | None = None,
    ) -> None:
        check_guider(guider)
        self.movement_seed = seed if movement_seed is None else movement_seed
        self.guider, self.sampler, self.sigmas = guider, sampler, sigmas
        self.seed, self.noise = seed, noise
        self.on_step, self.inspect, self.clip_name = on_step, inspect, clip_name
        self.towards: dict[int, tuple[Tensor, Tensor]] = {}
        self._exact: Any = None  # the guider in float32, once it was needed

    def __call__(self, noise: Tensor, conditions: Any, *, clip_index: int) -> Tensor:
        noise = rearrange(noise, "b f c h w -> b c f h w")
        if self.noise is not None:
            noise = clip_noise_of(self.noise, clip_index, noise)
        result, first = self._attempt(self.guider, noise, conditions, clip_index)
        if result is not None and first is None:
            return result
        name = self.clip_name(clip_index)
        log.warning("LetsTalk: %s: %s; it is sampled again in float32 with plain attention", name, first)
        self._exact = self._exact or exact_guider(self.guider)
        result, cause = self._attempt(self._exact, noise, conditions, clip_index)
        if result is None or cause is not None:
            raise NumericalError(f"{name}: {cause}, in float32 with plain attention, too; {REMEDY}")
        return result

    def _attempt(
        self, guider: Any, noise: Tensor, conditions: Any, clip_index: int
    ) -> tuple[Tensor | None, str | None]:
        """Latents and what is wrong with them; no latents if they were given up on the way."""
        guider = with_clip(guider, conditions.memory, int(conditions.audio), self.movement_seed)
        if clip_index in self.towards:
            guider = drawn_guider(guider, *self.towards[clip_index])
        steps = len(self.sigmas) - 1

        def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
            if not torch.isfinite(denoised).all():
                raise _BadLatents(f"{_culprit(guider)} NaN or infinity in step {step + 1} of {steps}")
            if self.on_step is not None:
                self.on_step(clip_index, step, denoised)

        seed = seeded_generator(self.seed, clip_index, "sampler").initial_seed()
        torch.manual_seed(seed)  # as ComfyUI does: samplers with churn draw from the global generator
        check_interrupt()
        try:
            samples = guider.sample(
                noise,
                torch.zeros_like(noise),
                self.sampler,
                self.sigmas,
                callback=callback,
                disable_pbar=True,
                seed=seed,
            )
        except _BadLatents as error:
            return None, str(error)
        latents = rearrange(samples.to("cpu", torch.float32), "b c f h w -> b f c h w")
        if not torch.isfinite(latents).all():
            return None, "its latents hold NaN or infinity"
        return latents, self.inspect(latents, clip_index) if self.inspect is not None else None


def _culprit(guider: Any) -> str:
    """The first stage of a step that spoiled it: the audio projection, or the network itself."""
    options = getattr(guider, "model_options", None) or {}
    store = options.get("transformer_options", {}).get(CACHE_OPTION)
    tokens = store.find(TOKENS_KEY) if isinstance(store, CacheStore) else []
    return "the audio projection gave" if any(not t.isfinite().all() for t in tokens) else "the model returned"


def with_clip(guider: Any, memory: Tensor, first_frame: int, movement_seed: int) -> Any:
    """A copy of a guider for one clip; every condition gets the same keys, so that they still run as one batch."""
    guider = copy.copy(guider)
    clip = {
        "letstalk_memory": memory,
        "letstalk_first_frame": first_frame,
        "letstalk_movement_seed": movement_seed,
    }
    guider.original_conds = {
        name: [{**cond, **clip} for cond in conds] for name, conds in guider.original_conds.items()
    }
    return guider


def drawn_guider(guider: Any, latents: Tensor, weights: Tensor) -> Any:
    """A copy of a guider whose estimates are partly given, frame by frame; the network makes the others fit.

    Shapes: latents (1, f, c, h, w), weights (f,), as of core's sampler.
    """
    latents, weights = rearrange(latents, "b f c h w -> b c f h w"), rearrange(weights, "f -> 1 1 f 1 1")

    def drawn(predict: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        denoised: Tensor = predict(x, *args, **kwargs)
        given = predict.class_obj.inner_model.process_latent_in(latents.to(denoised))
        return torch.lerp(denoised, given, weights.to(denoised))

    guider = copy.copy(guider)
    guider.model_options = comfy.model_patcher.create_model_options_clone(guider.model_options)
    kind = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
    comfy.patcher_extension.add_wrapper_with_key(
        kind, "letstalk_retake", drawn, guider.model_options, is_model_options=True
    )
    return guider


def exact_guider(guider: Any) -> Any:
    """A copy of a guider whose model computes in float32 and with the plainest attention there is."""

    def plain(attention: Any, *args: Any, **kwargs: Any) -> Any:
        return comfy.ldm.modules.attention.attention_basic(*args, **{**kwargs, "attn_precision": torch.float32})

    guider = copy.copy(guider)
    patcher = guider.model_patcher.clone()
    patcher.set_model_compute_dtype(torch.float32)
    options = patcher.model_options.setdefault("transformer_options", {})
    options["optimized_attention_override"] = plain
    guider.model_patcher, guider.model_options = patcher, patcher.model_options
    return guider


def clip_noise_of(noise: Any, clip_index: int, like: Tensor) -> Tensor:
    """Noise of a NOISE object for one clip: its own for the first, then the same object's with another seed.

    Objects that have no seed to change, such as no noise at all, give the same for every clip.
    """
    if clip_index and hasattr(noise, "seed"):
        seed = seeded_generator(noise.seed, clip_index, "noise").initial_seed()
        noise = copy.copy(noise)
        noise.seed = seed
    result: Tensor = noise.generate_noise({"samples": torch.zeros_like(like)})
    if result.shape != like.shape:
        raise ConfigError(f"noise: has shape {list(result.shape)}, this clip needs {list(like.shape)}")
    return result
