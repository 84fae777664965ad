"""Named shapes: one table per network. Public DC-AE names are those of the `mit-han-lab/dc-ae-*` repositories.

Source: docs/model.md, Autoencoder, Audio and Denoiser; paper (arXiv 2411.16748). `demo` is ours: small enough to train
and run on a CPU.
"""

from __future__ import annotations

from typing import Any

from .configs import AudioEncoderConfig, AudioProjectionConfig, AutoencoderConfig, DiTConfig

__all__ = ["AUDIO_ENCODER", "AUDIO_PROJECTION", "AUTOENCODER", "DIT"]

RES, VIT = "ResBlock", "EfficientViTBlock"
WIDTHS = (128, 256, 512, 512, 1024, 1024, 2048, 2048)


def _dc_ae(
    encoder: tuple[int, ...],
    decoder: tuple[int, ...],
    *,
    latent_channels: int,
    scaling_factor: float,
    widths: tuple[int, ...] = WIDTHS,
    vit: tuple[bool, bool] = (True, True),  # attention from the fourth stage on, in encoder and decoder
    scales: tuple[int, ...] = (),
    **changes: Any,
) -> AutoencoderConfig:
    """A row of the table below; the tuples give the layers of each stage."""
    stages = len(encoder)
    late = [(i >= 3) for i in range(stages)]
    defaults: dict[str, Any] = {
        "latent_channels": latent_channels,
        "scaling_factor": scaling_factor,
        "encoder_layers_per_block": encoder,
        "decoder_layers_per_block": decoder,
        "encoder_block_out_channels": widths[:stages],
        "decoder_block_out_channels": widths[:stages],
        "encoder_block_types": tuple(VIT if x and vit[0] else RES for x in late),
        "decoder_block_types": tuple(VIT if x and vit[1] else RES for x in late),
        "encoder_qkv_multiscales": tuple(scales if x and vit[0] else () for x in late),
        "decoder_qkv_multiscales": tuple(scales if x and vit[1] else () for x in late),
        "decoder_norm_types": ("rms_norm",) * stages,
        "decoder_act_fns": ("silu",) * stages,
    }
    return AutoencoderConfig(**{**defaults, **changes})


def _bn(stages: int) -> dict[str, Any]:
    """Decoders trained on ImageNet or the mix: batch norm and ReLU in the three stages without attention."""
    return {
        "decoder_norm_types": ("batch_norm",) * 3 + ("rms_norm",) * (stages - 3),
        "decoder_act_fns": ("relu",) * 3 + ("silu",) * (stages - 3),
    }


_CONV = {"downsample_block_type": "conv", "upsample_block_type": "interpolate"}
_LITE = {"downsample_block_type": "conv", "decoder_conv_act_fn": "silu", "vit": (True, False)}
_DEMO = {"widths": (16, 24, 48, 96, 192, 256), "vit": (False, False), "decoder_conv_act_fn": "silu", "image_size": 256}
_SANA, _TINY = (2, 2, 2, 3, 3, 3), (0, 1, 1, 2, 2, 2)

AUTOENCODER: dict[str, AutoencoderConfig] = {
    "f32c32-sana-1.0":      _dc_ae(_SANA,                    (3, 3, 3, 3, 3, 3),         latent_channels=32,  scaling_factor=0.41407, scales=(5,), **_CONV),
    "f32c32-sana-1.1":      _dc_ae(_SANA,                    (3, 3, 3, 3, 3, 3),         latent_channels=32,  scaling_factor=0.41407, scales=(5,), **_CONV),
    "lite-f32c32-sana-1.1": _dc_ae(_SANA,                    (0, 3, 5, 4, 4, 4),         latent_channels=32,  scaling_factor=0.41407, scales=(5,), **_LITE),
    "f32c32-in-1.0":        _dc_ae((0, 4, 8, 2, 2, 2),       (0, 5, 10, 2, 2, 2),        latent_channels=32,  scaling_factor=0.3189, **_bn(6)),
    "f32c32-mix-1.0":       _dc_ae((0, 4, 8, 2, 2, 2),       (0, 5, 10, 2, 2, 2),        latent_channels=32,  scaling_factor=0.4552, **_bn(6)),
    "f64c128-in-1.0":       _dc_ae((0, 4, 8, 2, 2, 2, 2),    (0, 5, 10, 2, 2, 2, 2),     latent_channels=128, scaling_factor=0.2889, **_bn(7)),
    "f64c128-mix-1.0":      _dc_ae((0, 4, 8, 2, 2, 2, 2),    (0, 5, 10, 2, 2, 2, 2),     latent_channels=128, scaling_factor=0.4538, **_bn(7)),
    "f128c512-in-1.0":      _dc_ae((0, 4, 8, 2, 2, 2, 2, 2), (0, 5, 10, 2, 2, 2, 2, 2),  latent_channels=512, scaling_factor=0.4883, **_bn(8)),
    "f128c512-mix-1.0":     _dc_ae((0, 4, 8, 2, 2, 2, 2, 2), (0, 5, 10, 2, 2, 2, 2, 2),  latent_channels=512, scaling_factor=0.3620, **_bn(8)),
    "demo":                 _dc_ae(_TINY,                    (0, 1, 2, 2, 2, 2),         latent_channels=32,  scaling_factor=1.0,    **_DEMO),
}  # fmt: skip

_DEMO_CLIP: dict[str, Any] = {"grid_size": (8, 8), "anchor_frames": 1, "audio_token_dim": 128}
DIT: dict[str, DiTConfig] = {
    "S":    DiTConfig(hidden_size=384,  depth=12, num_heads=6),
    "B":    DiTConfig(hidden_size=768,  depth=12, num_heads=12),
    "L":    DiTConfig(hidden_size=1024, depth=24, num_heads=16),
    "XL":   DiTConfig(hidden_size=1152, depth=28, num_heads=16),
    "demo": DiTConfig(hidden_size=192,  depth=6,  num_heads=6, mlp_ratio=2.5, **_DEMO_CLIP),
}  # fmt: skip

_DEMO_CONV: dict[str, Any] = {"conv_dim": (64,) * 7, "num_conv_pos_embeddings": 32}
AUDIO_ENCODER: dict[str, AudioEncoderConfig] = {
    "base": AudioEncoderConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "demo": AudioEncoderConfig(hidden_size=128, num_hidden_layers=3,  num_attention_heads=4,  intermediate_size=512, **_DEMO_CONV),
}  # fmt: skip

AUDIO_PROJECTION: dict[str, AudioProjectionConfig] = {
    "base": AudioProjectionConfig(window=5, layers=12, encoder_dim=768, hidden_size=512, tokens=32, token_dim=768),
    "demo": AudioProjectionConfig(window=5, layers=3,  encoder_dim=128, hidden_size=256, tokens=8,  token_dim=128),
}  # fmt: skip
