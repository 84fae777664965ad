"""Core's clip sampler on top of ComfyUI: any GUIDER, SAMPLER and SIGMAS; nothing that is cached is changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.samplers import CFGGuider, Sampler
from einops import rearrange
from torch import Tensor

from ...letstalk_core.errors import ConfigError, NumericalError
from ...letstalk_core.networks.numerical_guard import NumericalGuard
from ...letstalk_core.sampling.clip import Blend, Clip, seeded_generator
from .dit import CACHE_OPTION, TOKENS_KEY, CacheStore
from .progress import check_interrupt

REMEDY = (
    "use weight_dtype `default` in Load DiT, lower audio_scale and portrait_scale, and check LoRA files and model"
    " patches"
)


def default_sampler(prediction: str) -> Sampler:
    """The SAMPLER for a network that predicts this, as in the standalone pipeline; the paper's ancestral DDPM has
    no counterpart among ComfyUI's samplers, so its models are sampled with DPM++ 2M on the predicted mean."""
    return comfy.samplers.sampler_object("euler" if prediction == "flow" else "dpmpp_2m")


def check_guider(guider: CFGGuider) -> dict[str, list[dict[str, Any]]]:
    """The conditions of a GUIDER by name. Raises: ConfigError for an object that works in another way."""
    conds = getattr(guider, "original_conds", None)
    if not isinstance(conds, dict) or not hasattr(guider, "model_patcher"):
        raise ConfigError(
            f"guider: is a {type(guider).__name__} without conditions; use LetsTalk Guider, CFGGuider or"
            " DualCFGGuider"
        )
    return conds


class ComfyClipSampler:
    """A core ClipSampler: noise and memory -> clean latents (b, f, c, h, w), float32, on the CPU.

    Memory and the clip's first frame go into a copy of the guider; portrait and speech are there already. `seed`
    feeds samplers that add noise as they go, differently for each clip, and moves head and eyes unless there is a
    `movement_seed`. A NOISE object replaces the noise it is given. `on_step(clip, step, denoised)` is called after
    each step. `inspect(latents, clip)` returns what is wrong with finished latents, or None. `clip_name(clip)` is
    what people call a clip. A bad clip is sampled again in float32 with plain attention; the next is tried as it
    comes, so that a resumed run samples each clip as an unbroken one.
    Raises: NumericalError naming clip and cause when a clip stays bad; ComfyUI's InterruptProcessingException.
    """

    def __init__(
        self,
        guider: CFGGuider,
        sampler: Sampler,
        sigmas: Tensor,
        *,
        seed: int,
        noise: Any = None,
        on_step: Callable[[Clip, int, Tensor], None] | None = None,
        inspect: Callable[[Tensor, Clip], str | None] | None = None,
        clip_name: Callable[[Clip], str] = lambda clip: f"clip {clip.index + 1}",
        movement_seed: int | None = None,
    ) -> None:
        check_guider(guider)
        self.movement_seed = seed if movement_seed is None else movement_seed
        self.guider, self.sampler, self.sigmas = guider, sampler, sigmas
        self.seed, self.noise = seed, noise
        self.on_step, self.inspect, self.clip_name = on_step, inspect, clip_name
        self.guard = NumericalGuard(exact_guider)

    def __call__(self, noise: Tensor, memory: Tensor, clip: Clip, blend: Blend | None = None) -> Tensor:
        noise = rearrange(noise, "b f c h w -> b c f h w")
        if self.noise is not None:
            noise = clip_noise_of(self.noise, clip.index, noise)

        def sample(guider: CFGGuider) -> Tensor:
            guider = with_clip(guider, memory, clip.first, self.movement_seed)
            return self._sample(guider if blend is None else blended_guider(guider, blend), noise, clip)

        return self.guard(self.clip_name(clip), self.guider, sample, remedy=REMEDY)

    def _sample(self, guider: CFGGuider, noise: Tensor, clip: Clip) -> Tensor:
        """Latents; raises NumericalError with what is wrong with them, as soon as it shows."""
        steps = len(self.sigmas) - 1

        def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
            if not torch.isfinite(denoised).all():
                raise NumericalError(f"{_culprit(guider)} NaN or infinity in step {step + 1} of {steps}")
            if self.on_step is not None:
                self.on_step(clip, step, denoised)

        seed = seeded_generator(self.seed, clip.index, "sampler").initial_seed()
        torch.manual_seed(seed)  # as ComfyUI does: samplers with churn draw from the global generator
        check_interrupt()
        samples = guider.sample(
            noise,
            torch.zeros_like(noise),
            self.sampler,
            self.sigmas,
            callback=callback,
            disable_pbar=True,
            seed=seed,
        )
        latents = rearrange(samples.to("cpu", torch.float32), "b c f h w -> b f c h w")
        if not torch.isfinite(latents).all():
            raise NumericalError("its latents hold NaN or infinity")
        if self.inspect is not None and (cause := self.inspect(latents, clip)) is not None:
            raise NumericalError(cause)
        return latents


def _culprit(guider: CFGGuider) -> str:
    """The first stage of a step that spoiled it: the audio projection, or the network itself."""
    options = getattr(guider, "model_options", None) or {}
    store = options.get("transformer_options", {}).get(CACHE_OPTION)
    tokens = store.find(TOKENS_KEY) if isinstance(store, CacheStore) else []
    return "the audio projection gave" if any(not t.isfinite().all() for t in tokens) else "the model returned"


def with_clip(guider: CFGGuider, memory: Tensor, first_frame: int, movement_seed: int) -> CFGGuider:
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


def blended_guider(guider: CFGGuider, blend: Blend) -> CFGGuider:
    """A copy of a guider whose estimates are partly given, frame by frame; the network makes the others fit."""
    latents = rearrange(blend.latents, "b f c h w -> b c f h w")
    weights = rearrange(blend.weights, "f -> 1 1 f 1 1")

    def blended(predict: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        denoised: Tensor = predict(x, *args, **kwargs)
        given = predict.class_obj.inner_model.process_latent_in(latents.to(denoised))
        return torch.lerp(denoised, given, weights.to(denoised))

    guider = copy.copy(guider)
    guider.model_options = comfy.model_patcher.create_model_options_clone(guider.model_options)
    kind = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
    comfy.patcher_extension.add_wrapper_with_key(
        kind, "letstalk_retake", blended, guider.model_options, is_model_options=True
    )
    return guider


def exact_guider(guider: CFGGuider) -> CFGGuider:
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
