"""Configs: they survive JSON, and refuse what cannot work before anything is built."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_core.networks import configs
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.presets import AUDIO_ENCODER, AUDIO_PROJECTION, AUTOENCODER, DIT
from letstalk_core.networks.projection import AudioProjection
from letstalk_core.networks.transformer.dit import LetsTalkDiT

PRESETS: list[configs.Config] = [
    c for table in (AUTOENCODER, DIT, AUDIO_ENCODER, AUDIO_PROJECTION) for c in table.values()
]
few = st.integers(1, 8)


dits = st.builds(
    configs.DiTConfig,
    hidden_size=few.map(lambda n: 32 * n),
    depth=few,
    num_heads=st.sampled_from((1, 2, 4, 8)),
    patch_size=st.integers(1, 2),
    mlp_ratio=st.floats(0.5, 4),
    portrait_fusion=st.sampled_from(configs.FUSIONS),
    audio_fusion=st.sampled_from(configs.FUSIONS),
    grid_size=st.tuples(few, few),
    clip_frames=few,
    memory_frames=st.integers(0, 4),
    anchor_frames=st.integers(0, 4),
    prediction=st.sampled_from(("epsilon", "v", "flow")),
    memory_noise=st.floats(0, 1),
)
audio_encoders = st.builds(
    configs.AudioEncoderConfig,
    hidden_size=few.map(lambda n: 48 * n),
    num_attention_heads=st.sampled_from((1, 2, 3)),
    conv_dim=st.tuples(*[few] * 7),
    feat_extract_norm=st.sampled_from(("group", "layer")),
)
projections = st.builds(configs.AudioProjectionConfig, window=few.map(lambda n: 2 * n - 1), layers=few, tokens=few)


@given(config=st.one_of(dits, audio_encoders, projections, st.sampled_from(PRESETS)))
def test_a_config_survives_json(config: configs.Config) -> None:
    values = json.loads(json.dumps(config.to_dict()))
    found = configs.config_class(config.kind).from_dict(values)
    assert found == config and hash(found) == hash(config)


def test_unknown_kinds_fields_and_missing_fields_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown kind of model 'vocoder'"):
        configs.config_class("vocoder")
    with pytest.raises(ConfigError, match=r"unknown fields \['colour'\]"):
        configs.DiTConfig.from_dict({**DIT["S"].to_dict(), "colour": 1})
    with pytest.raises(ConfigError, match="num_heads"):
        configs.DiTConfig.from_dict({"hidden_size": 64, "depth": 1})


BAD_CARRY = {"working_size": 36, "hidden_size": 0, "mask_layers": 9}
LIPS = configs.LipsConfig(layers=2, encoder_dim=8, hidden_size=16)
AUDIO, TOKENS = configs.AudioEncoderConfig(), configs.AudioProjectionConfig()


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (DIT["S"], {"depth": "12"}, "depth='12'"),
        (DIT["S"], {"depth": True}, "depth=True"),
        (DIT["S"], {"depth": 1.5}, "depth=1.5"),
        (DIT["S"], {"depth": 0}, "depth=0 must be > 0"),
        (DIT["S"], {"num_heads": 5}, "not a multiple of num_heads=5"),
        (DIT["S"], {"hidden_size": 6, "num_heads": 2, "linear_head_dim": 2}, "hidden_size=6 must be a multiple"),
        (DIT["S"], {"linear_head_dim": 48, "hidden_size": 64, "num_heads": 2}, "linear_head_dim=48"),
        (DIT["S"], {"mlp_ratio": 0.0}, "mlp_ratio=0.0"),
        (DIT["S"], {"portrait_fusion": "concat"}, "portrait_fusion='concat'"),
        (DIT["S"], {"audio_fusion": "none"}, "audio_fusion='none'"),
        (DIT["S"], {"spatial_attention": "flash"}, "spatial_attention='flash'"),
        (DIT["S"], {"prediction": "x0"}, "prediction='x0'"),
        (DIT["S"], {"learned_variance": True}, "learned_variance needs prediction='epsilon'"),
        (DIT["S"], {"clip_frames": 0}, "clip_frames=0"),
        (DIT["S"], {"memory_frames": -1}, "memory_frames=-1"),
        (DIT["S"], {"grid_size": (0, 8)}, r"grid_size=\(0, 8\)"),
        (DIT["S"], {"grid_size": (8,)}, r"grid_size=\(8,\)"),
        (DIT["S"], {"fps": 0.0}, "fps=0.0"),
        (DIT["S"], {"fps": float("nan")}, "fps=nan must be > 0"),
        (DIT["S"], {"mlp_ratio": float("inf")}, "mlp_ratio=inf"),
        (DIT["S"], {"audio_token_dim": 0}, "audio_token_dim=0 must be > 0"),
        (AUTOENCODER["demo"], {"encoder_block_types": ("ResBlock",)}, "is not one for each of 6 stages"),
        (AUTOENCODER["demo"], {"decoder_block_types": ("Mamba",) * 6}, "must be one of ResBlock"),
        (AUTOENCODER["demo"], {"encoder_layers_per_block": (0, 1, -1, 1, 1, 1)}, "encoder_layers_per_block="),
        (AUTOENCODER["demo"], {"latent_channels": 0}, "latent_channels=0 must be > 0"),
        (AUTOENCODER["demo"], {"attention_head_dim": 0}, "attention_head_dim=0 must be > 0"),
        (AUTOENCODER["demo"], {"encoder_block_out_channels": ()}, "has 0 stages"),
        (AUTOENCODER["demo"], {"decoder_block_out_channels": (0, 24, 48, 96, 192, 256)}, "must be > 0"),
        (AUTOENCODER["demo"], {"encoder_block_types": ("EfficientViTBlock",) * 6}, "attention width 16"),
        (AUTOENCODER["demo"], {"latent_channels": 48}, "latent_channels=48"),
        (AUTOENCODER["demo"], {"downsample_block_type": "pool"}, "downsample_block_type='pool'"),
        (AUTOENCODER["demo"], {"upsample_block_type": "bilinear"}, "upsample_block_type='bilinear'"),
        (AUTOENCODER["demo"], {"decoder_norm_types": ("layer_norm",) * 6}, "must be one of rms_norm"),
        (AUTOENCODER["demo"], {"decoder_conv_act_fn": "gelu"}, "decoder_conv_act_fn='gelu'"),
        (AUTOENCODER["demo"], {"scaling_factor": 0.0}, "scaling_factor=0.0"),
        (AUTOENCODER["demo"], {"latent_rgb_factors": ((0.0, 0.0, 0.0),)}, "needs 64 rows"),
        (AUDIO, {"hidden_size": 10, "num_attention_heads": 3}, "num_attention_heads=3"),
        (AUDIO, {"num_attention_heads": 0}, "num_attention_heads=0 must be > 0"),
        (AUDIO, {"conv_stride": (5, 2, 0, 2, 2, 2, 2)}, "conv_stride=.* must be > 0"),
        (AUDIO, {"conv_dim": (), "conv_kernel": (), "conv_stride": ()}, "has 0 convolutions"),
        (AUDIO, {"hidden_size": 24}, "num_conv_pos_embedding_groups=16"),
        (AUDIO, {"conv_dim": (1, 2)}, "differ in length"),
        (AUDIO, {"feat_extract_norm": "batch"}, "feat_extract_norm='batch'"),
        (TOKENS, {"window": 4}, "window=4 must be odd"),
        (TOKENS, {"tokens": 0}, "tokens=0"),
        *((configs.CarryConfig(), {name: value}, name) for name, value in BAD_CARRY.items()),
        *((LIPS, {name: 0}, name) for name in ("layers", "encoder_dim", "hidden_size")),
    ],
)
def test_a_config_that_cannot_work_is_refused(config: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **changes)


# presets: the public models are what they are, and the demo parts fit each other

# name: parameters of encoder and decoder as published, spatial factor, latent channels, scale
PUBLIC = {
    "f32c32-sana-1.0":      (153_027_104, 159_223_171, 32,  32,  0.41407),
    "f32c32-sana-1.1":      (153_027_104, 159_223_171, 32,  32,  0.41407),
    "lite-f32c32-sana-1.1": (153_027_104, 268_154_124, 32,  32,  0.41407),
    "f32c32-in-1.0":        (123_172_384, 200_184_076, 32,  32,  0.3189),
    "f32c32-mix-1.0":       (123_172_384, 200_184_076, 32,  32,  0.4552),
    "f64c128-in-1.0":       (264_550_528, 412_345_612, 64,  128, 0.2889),
    "f64c128-mix-1.0":      (264_550_528, 412_345_612, 64,  128, 0.4538),
    "f128c512-in-1.0":      (415_661_056, 705_021_196, 128, 512, 0.4883),
    "f128c512-mix-1.0":     (415_661_056, 705_021_196, 128, 512, 0.3620),
}  # fmt: skip


def count(module: object) -> int:
    return sum(p.numel() for p in module.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_autoencoders_have_the_published_sizes(name: str) -> None:
    config = AUTOENCODER[name]
    model = AutoencoderDC(config, device="meta")
    found = (count(model.encoder), count(model.decoder), config.spatial_factor, config.latent_channels)
    assert (*found, config.scaling_factor) == PUBLIC[name]


@pytest.mark.parametrize(
    ("name", "heads", "millions"), [("S", 6, 59.55), ("B", 12, 222.62), ("L", 16, 773.88), ("XL", 16, 1135.18)]
)
def test_denoisers_have_the_heads_and_parameters_of_the_paper(name: str, heads: int, millions: float) -> None:
    config = dataclasses.replace(DIT[name], learned_variance=True, prediction="epsilon")
    tables = (16 * 16 + 18) * config.hidden_size  # the authors' fixed position tables, which ours computes
    assert round((count(LetsTalkDiT(config, device="meta")) + tables) / 1e6, 2) == millions
    assert config.num_heads == heads


def test_the_audio_projection_has_the_published_number_of_parameters() -> None:
    assert round(count(AudioProjection(AUDIO_PROJECTION["base"], device="meta")) / 1e6, 1) == 36.5


@pytest.mark.parametrize(("encoder", "projection", "denoisers"), [
    ("base", "base", ("S", "B", "L", "XL")),
    ("demo", "demo", ("demo",)),
])  # fmt: skip
def test_audio_parts_and_denoisers_fit(encoder: str, projection: str, denoisers: tuple[str, ...]) -> None:
    states, tokens = AUDIO_ENCODER[encoder], AUDIO_PROJECTION[projection]
    assert (tokens.encoder_dim, tokens.layers) == (states.hidden_size, states.num_hidden_layers)
    assert {DIT[name].audio_token_dim for name in denoisers} == {tokens.token_dim}


def test_the_demo_denoiser_fits_the_demo_autoencoder() -> None:
    autoencoder, dit = AUTOENCODER["demo"], DIT["demo"]
    side = autoencoder.image_size // autoencoder.spatial_factor
    assert dit.grid_size == (side, side)
    assert dit.in_channels == autoencoder.latent_channels
