"""CONDITIONING of LetsTalk as the network wants it: checked, cut to the clip, on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.networks.configs import AudioProjectionConfig, DiTConfig
from ...letstalk_core.sampling.memory_bank import MemoryBank
from ...letstalk_core.sampling.motion import Movement
from ...letstalk_core.sampling.motion_curves import MotionCurves

NOT_OURS = "{}: holds no speech and portrait; connect LetsTalk Conditioning"


def check_conditioning(positive: Any, name: str = "positive") -> None:
    """Raises: ConfigError for a CONDITIONING that does not come from LetsTalk Conditioning."""
    for _, values in positive:
        if not values.get("reference_latents") or values.get("letstalk_audio") is None:
            raise ConfigError(NOT_OURS.format(name))


def model_conditions(
    config: DiTConfig,
    projection: AudioProjectionConfig,
    *,
    noise: Tensor,
    device: Any,
    reference_latents: list[Tensor] | None = None,
    letstalk_audio: Any = None,
    letstalk_first_frame: int = 0,
    letstalk_audio_gain: float = 1.0,
    letstalk_portrait_gain: float = 1.0,
    letstalk_memory: Tensor | None = None,
    letstalk_movement: float = 1.0,
    letstalk_movement_seed: int | None = None,
    letstalk_motion: MotionCurves | None = None,
    seed: int | None = None,
    prompt_type: str = "positive",
    **others: Any,
) -> dict[str, Tensor]:
    """Tensors by the names of ExactInputs, float32 on the device, for latents like `noise` (b, c, f, h, w).

    Every CONDITIONING gives the same names and shapes, so that ComfyUI runs them as one batch. Null portrait and
    null audio are gains of 0; the memory is the same with and without them. Without letstalk_memory the clip is
    the first of its video. Head and eyes move by letstalk_movement_seed, without it by that of the sampler.
    Raises: ConfigError naming the input.
    """
    if not reference_latents or letstalk_audio is None:
        raise ConfigError(NOT_OURS.format(prompt_type))
    if noise.ndim != 5 or noise.shape[1] != config.in_channels:
        raise ConfigError(
            f"latent_image: has shape {list(noise.shape)}, the model needs (1, {config.in_channels}, frames, h,"
            " w); connect the latent of LetsTalk Conditioning"
        )
    size = tuple(noise.shape[-2:])
    portrait = check_portrait(reference_latents[-1], config, size, prompt_type).to(device, torch.float32)
    check_track(letstalk_audio, projection, prompt_type)
    windows = letstalk_audio.windows(letstalk_first_frame, noise.shape[2], projection.window)
    if letstalk_memory is None:
        bank = MemoryBank.for_model(config, seed=seed or 0)
        bank.reset(portrait)
        letstalk_memory = bank.read()
    tensors = {
        "portrait": portrait * letstalk_portrait_gain,
        "audio_states": windows[None].to(device, torch.float32),
        "audio_gain": torch.full((1, 1, 1, 1), float(letstalk_audio_gain), device=device),
        "memory": letstalk_memory.to(device, torch.float32),
    }
    if projection.movement:
        moved = letstalk_movement_seed if letstalk_movement_seed is not None else seed or 0
        amount, curves = letstalk_movement, letstalk_motion
        movement = Movement(projection.movement, seed=moved, fps=letstalk_audio.fps, amount=amount, curves=curves)
        tensors["movement"] = movement.rows(letstalk_first_frame, noise.shape[2])[None].to(device)
    return tensors


def check_portrait(latents: Tensor, config: DiTConfig, size: tuple[int, ...], name: str = "positive") -> Tensor:
    """A portrait latent (b, c, 1, h, w) or (b, c, h, w) as (b, c, h, w). Raises: ConfigError."""
    if latents.ndim == 5 and latents.shape[2] == 1:
        latents = latents[:, :, 0]
    if latents.ndim != 4:
        raise ConfigError(
            f"{name}: its portrait latent has shape {list(latents.shape)}; encode one picture, not a video"
        )
    _, channels, *found = latents.shape
    if channels != config.in_channels:
        raise ConfigError(
            f"{name}: its portrait has {channels} latent channels, the model works on {config.in_channels}; encode"
            " it with the autoencoder that belongs to the model"
        )
    if tuple(found) != size:
        raise ConfigError(
            f"{name}: its portrait latent is {found[0]} x {found[1]} and the clip's {size[0]} x {size[1]}; connect"
            " the latent of the same LetsTalk Conditioning"
        )
    return latents


def check_track(track: Any, projection: AudioProjectionConfig, name: str = "positive") -> None:
    """Raises: ConfigError for speech that another encoder encoded."""
    found, needed = (track.layers, track.dim), (projection.layers, projection.encoder_dim)
    if found != needed:
        raise ConfigError(
            f"{name}: its speech has {found[0]} layers of {found[1]} numbers"
            f" ({getattr(track, 'kind', '') or 'unknown encoder'}), the model was trained on {needed[0]} layers of"
            f" {needed[1]}; encode it with the audio encoder that belongs to the model"
        )
