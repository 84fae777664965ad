"""Named shapes: one table per network. Public DC-AE names are those of the `mit-han-lab/dc-ae-*` repositories.

Source: docs/model.md, Autoencoder, Audio and Denoiser; paper (arXiv 2411.16748). `demo` is ours: small enough to
train and to run on a CPU.
"""

from __future__ import annotations

from typing import Any

from .configs import (
    AudioEncoderConfig,
    AudioProjectionConfig,
    AutoencoderConfig,
    CarryConfig,
    DiTConfig,
    FacesConfig,
    LipsConfig,
)

WIDTHS = (128, 256, 512, 512, 1024, 1024, 2048, 2048)  # of the public models, as many as there are stages
ATTENTION_FROM = 3  # the first stage with attention


def _dc_ae(
    encoder: tuple[int, ...],
    decoder: tuple[int, ...],
    latent_channels: int,
    scaling_factor: float,
    *,
    widths: tuple[int, ...] = WIDTHS,
    attention: tuple[bool, bool] = (True, True),
    scales: tuple[int, ...] = (),
    **changes: Any,
) -> AutoencoderConfig:
    """A row of the table: layers per stage of encoder and decoder, which of them attend, at what scales."""
    stages = range(len(encoder))
    fields: dict[str, Any] = {
        "latent_channels": latent_channels,
        "scaling_factor": scaling_factor,
        "decoder_norm_types": ("rms_norm",) * len(stages),
        "decoder_act_fns": ("silu",) * len(stages),
    }
    for side, layers, attends in (("encoder", encoder, attention[0]), ("decoder", decoder, attention[1])):
        late = [attends and i >= ATTENTION_FROM for i in stages]
        fields[f"{side}_layers_per_block"] = layers
        fields[f"{side}_block_out_channels"] = widths[: len(stages)]
        fields[f"{side}_block_types"] = tuple("EfficientViTBlock" if x else "ResBlock" for x in late)
        fields[f"{side}_qkv_multiscales"] = tuple(scales if x else () for x in late)
    return AutoencoderConfig(**{**fields, **changes})


def _batch_norm(stages: int) -> dict[str, Any]:
    """Decoders of the `in` and `mix` models: batch norm and ReLU in the stages without attention."""
    early, late = ATTENTION_FROM, stages - ATTENTION_FROM
    return {
        "decoder_norm_types": ("batch_norm",) * early + ("rms_norm",) * late,
        "decoder_act_fns": ("relu",) * early + ("silu",) * late,
    }


_SANA: dict[str, Any] = {"downsample_block_type": "conv", "upsample_block_type": "interpolate", "scales": (5,)}
_LITE: dict[str, Any] = {
    "downsample_block_type": "conv",
    "scales": (5,),
    "attention": (True, False),
    "decoder_conv_act_fn": "silu",
}
_DEMO: dict[str, Any] = {
    "widths": (16, 16, 32, 64, 128, 256),
    "decoder_block_out_channels": (24, 24, 48, 96, 128, 256),
    "attention": (False, False),
    "decoder_conv_act_fn": "silu",
    "image_size": 256,
}
_BN6, _BN7, _BN8 = _batch_norm(6), _batch_norm(7), _batch_norm(8)

AUTOENCODER: dict[str, AutoencoderConfig] = {
    "f32c32-sana-1.0":      _dc_ae((2, 2, 2, 3, 3, 3),       (3, 3, 3, 3, 3, 3),        32,  0.41407, **_SANA),
    "f32c32-sana-1.1":      _dc_ae((2, 2, 2, 3, 3, 3),       (3, 3, 3, 3, 3, 3),        32,  0.41407, **_SANA),
    "lite-f32c32-sana-1.1": _dc_ae((2, 2, 2, 3, 3, 3),       (0, 3, 5, 4, 4, 4),        32,  0.41407, **_LITE),
    "f32c32-in-1.0":        _dc_ae((0, 4, 8, 2, 2, 2),       (0, 5, 10, 2, 2, 2),       32,  0.3189,  **_BN6),
    "f32c32-mix-1.0":       _dc_ae((0, 4, 8, 2, 2, 2),       (0, 5, 10, 2, 2, 2),       32,  0.4552,  **_BN6),
    "f64c128-in-1.0":       _dc_ae((0, 4, 8, 2, 2, 2, 2),    (0, 5, 10, 2, 2, 2, 2),    128, 0.2889,  **_BN7),
    "f64c128-mix-1.0":      _dc_ae((0, 4, 8, 2, 2, 2, 2),    (0, 5, 10, 2, 2, 2, 2),    128, 0.4538,  **_BN7),
    "f128c512-in-1.0":      _dc_ae((0, 4, 8, 2, 2, 2, 2, 2), (0, 5, 10, 2, 2, 2, 2, 2), 512, 0.4883,  **_BN8),
    "f128c512-mix-1.0":     _dc_ae((0, 4, 8, 2, 2, 2, 2, 2), (0, 5, 10, 2, 2, 2, 2, 2), 512, 0.3620,  **_BN8),
    "demo":                 _dc_ae((0, 0, 1, 1, 1, 2),       (0, 0, 2, 2, 2, 2),        64,  1.0,     **_DEMO),
}  # fmt: skip

CARRY: dict[str, CarryConfig] = {"demo": CarryConfig()}

_DEMO_CLIP: dict[str, Any] = {
    "grid_size": (8, 8),
    "anchor_frames": 1,
    "audio_token_dim": 128,
    "in_channels": 64,
    "output": "sample",
    "portrait_residual": True,
    "residual_scale": 0.48,  # measured on 40 clips with the second autoencoder, cells weighted as in the loss
}
DIT: dict[str, DiTConfig] = {
    "S":    DiTConfig(hidden_size=384,  depth=12, num_heads=6),
    "B":    DiTConfig(hidden_size=768,  depth=12, num_heads=12),
    "L":    DiTConfig(hidden_size=1024, depth=24, num_heads=16),
    "XL":   DiTConfig(hidden_size=1152, depth=28, num_heads=16),
    "demo": DiTConfig(hidden_size=160,  depth=5,  num_heads=5, mlp_ratio=2.0, **_DEMO_CLIP),
}  # fmt: skip

AUDIO_ENCODER: dict[str, AudioEncoderConfig] = {
    "base": AudioEncoderConfig(),
    "demo": AudioEncoderConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        conv_dim=(64,) * 7,
        num_conv_pos_embeddings=32,
    ),
}

AUDIO_PROJECTION: dict[str, AudioProjectionConfig] = {
    "base": AudioProjectionConfig(window=5, layers=12, encoder_dim=768, hidden_size=512, tokens=32, token_dim=768),
    "demo": AudioProjectionConfig(window=5, layers=3,  encoder_dim=128, hidden_size=256, tokens=8,  token_dim=128),
}  # fmt: skip

FACES = {"demo": FacesConfig()}

LIPS = {"demo": LipsConfig(tells_shut=True)}
