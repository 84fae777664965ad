"""Networks so small that whole runs take a moment, for tests and damaged files, and sound of any length."""

from __future__ import annotations

import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.configs import AudioEncoderConfig, AudioProjectionConfig, AutoencoderConfig, DiTConfig


def tiny_autoencoder(
    widths: tuple[int, ...],
    layers: tuple[int, ...],
    *,
    channels: int = 4,
    size: int = 32,
    scaling_factor: float = 1.0,
) -> AutoencoderConfig:
    """Stages of residual blocks alone."""
    stages = len(widths)
    return AutoencoderConfig(
        latent_channels=channels,
        encoder_block_types=("ResBlock",) * stages,
        decoder_block_types=("ResBlock",) * stages,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=((),) * stages,
        decoder_qkv_multiscales=((),) * stages,
        decoder_norm_types=("rms_norm",) * stages,
        decoder_act_fns=("silu",) * stages,
        scaling_factor=scaling_factor,
        image_size=size,
    )


def tiny_encoder(width: int, layers: int, heads: int = 2) -> AudioEncoderConfig:
    return AudioEncoderConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=width,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )


def tiny_configs(
    *, levels: int, width: int, layers: int, grid: int, scaling_factor: float
) -> tuple[AutoencoderConfig, AudioEncoderConfig, AudioProjectionConfig, DiTConfig]:
    """Of an autoencoder with `levels` (2 or 3), an audio encoder of `width` and `layers`, and a DiT on a grid.

    32 px frames, clips of 4 frames with one anchor, flow prediction.
    """
    autoencoder = tiny_autoencoder((4, 8, 8)[:levels], (0, 1, 1)[:levels], scaling_factor=scaling_factor)
    projection = AudioProjectionConfig(
        window=2 * layers + 1,
        layers=layers,
        encoder_dim=width,
        hidden_size=8,
        tokens=2,
        token_dim=8,
        movement=("blink", "yaw"),
    )
    dit = DiTConfig(
        hidden_size=16,
        depth=1,
        num_heads=2,
        in_channels=4,
        linear_head_dim=8,
        mlp_ratio=1.0,
        audio_token_dim=8,
        grid_size=(grid, grid),
        clip_frames=4,
        anchor_frames=1,
    )
    return autoencoder, tiny_encoder(width, layers), projection, dit


def save_models(folder: Path, models: Mapping[str, Any], notes: dict[str, str] | None = None) -> None:
    """Networks by kind as the files of a model folder; `notes` go into that of the denoiser."""
    for name in ("autoencoder", "audio_encoder", "dit"):
        kinds = [name, "audio_projection"] if name == "dit" else [name]
        parts = {kind: (models[kind].config, models[kind].state_dict()) for kind in kinds}
        save_checkpoint(folder / f"{name}.safetensors", parts, notes if name == "dit" else None)


def write_speech(path: Path, seconds: float, rate: int = 16_000) -> None:
    """Noise in syllables, another in every second, written as a stream."""
    generator = torch.Generator().manual_seed(1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        syllables = torch.sin(torch.arange(rate) / rate * 6.2832 * 4).clamp(min=0)
        left = round(seconds * rate)
        while left > 0:
            count = min(left, rate)
            sound = torch.randn(rate, generator=generator) * syllables * 6000
            file.writeframes(sound[:count].clamp(-32768, 32767).short().numpy().tobytes())
            left -= count
