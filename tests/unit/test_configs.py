"""Configs: they survive JSON, and refuse what cannot work before anything is built."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_core.networks.configs import (
    BLOCKS,
    FUSIONS,
    AudioEncoderConfig,
    AudioProjectionConfig,
    AutoencoderConfig,
    Config,
    DiTConfig,
    config_class,
)
from letstalk_core.networks.presets import AUDIO_ENCODER, AUDIO_PROJECTION, AUTOENCODER, DIT

PRESETS: list[Config] = [
    c for table in (AUTOENCODER, DIT, AUDIO_ENCODER, AUDIO_PROJECTION) for c in table.values()
]
few = st.integers(1, 8)


@st.composite
def autoencoders(draw: st.DrawFn) -> AutoencoderConfig:
    stages = draw(st.integers(2, 6))
    channels = draw(few)

    def per_stage(values: st.SearchStrategy[Any]) -> Any:
        return draw(st.tuples(*[values] * stages))

    fields: dict[str, Any] = {"latent_channels": channels, "attention_head_dim": draw(st.sampled_from((1, 4)))}
    for side in ("encoder", "decoder"):
        widths = per_stage(few.map(lambda n: 4 * n))
        fields[f"{side}_block_out_channels"] = (*widths[:-1], 4 * channels)
        fields[f"{side}_layers_per_block"] = (draw(st.integers(0, 2)), *per_stage(few)[1:])
        fields[f"{side}_block_types"] = per_stage(st.sampled_from(BLOCKS))
        fields[f"{side}_qkv_multiscales"] = per_stage(st.sampled_from(((), (5,), (3, 5))))
    fields["decoder_norm_types"] = per_stage(st.sampled_from(("rms_norm", "batch_norm")))
    fields["decoder_act_fns"] = per_stage(st.sampled_from(("silu", "relu")))
    fields["scaling_factor"] = draw(st.floats(1e-3, 10))
    if draw(st.booleans()):
        fields["latent_rgb_factors"] = ((0.1, -0.2, 0.5),) * channels
        fields["latent_rgb_bias"] = (0.0, 0.25, 1.0)
    return AutoencoderConfig(**fields)


dits = st.builds(
    DiTConfig,
    hidden_size=few.map(lambda n: 32 * n),
    depth=few,
    num_heads=st.sampled_from((1, 2, 4, 8)),
    patch_size=st.integers(1, 2),
    mlp_ratio=st.floats(0.5, 4),
    portrait_fusion=st.sampled_from(FUSIONS),
    audio_fusion=st.sampled_from(FUSIONS),
    grid_size=st.tuples(few, few),
    clip_frames=few,
    memory_frames=st.integers(0, 4),
    anchor_frames=st.integers(0, 4),
    prediction=st.sampled_from(("epsilon", "v", "flow")),
    memory_noise=st.floats(0, 1),
)
audio_encoders = st.builds(
    AudioEncoderConfig,
    hidden_size=few.map(lambda n: 48 * n),
    num_attention_heads=st.sampled_from((1, 2, 3)),
    conv_dim=st.tuples(*[few] * 7),
    feat_extract_norm=st.sampled_from(("group", "layer")),
)
projections = st.builds(AudioProjectionConfig, window=few.map(lambda n: 2 * n - 1), layers=few, tokens=few)


@given(config=st.one_of(autoencoders(), dits, audio_encoders, projections, st.sampled_from(PRESETS)))
def test_a_config_survives_json(config: Config) -> None:
    values = json.loads(json.dumps(config.to_dict()))
    found = config_class(config.kind).from_dict(values)
    assert found == config and hash(found) == hash(config)


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DIT["S"].depth = 3  # type: ignore[misc]


def test_unknown_kinds_fields_and_missing_fields_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown kind of model 'vocoder'"):
        config_class("vocoder")
    with pytest.raises(ConfigError, match=r"unknown fields \['colour'\]"):
        DiTConfig.from_dict({**DIT["S"].to_dict(), "colour": 1})
    with pytest.raises(ConfigError, match="num_heads"):
        DiTConfig.from_dict({"hidden_size": 64, "depth": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": "12"}, "depth='12'"),
        ({"depth": True}, "depth=True"),
        ({"depth": 1.5}, "depth=1.5"),
        ({"depth": 0}, "depth=0 must be > 0"),
        ({"num_heads": 5}, "not a multiple of num_heads=5"),
        ({"hidden_size": 6, "num_heads": 2, "linear_head_dim": 2}, "hidden_size=6 must be a multiple of 4"),
        ({"linear_head_dim": 48, "hidden_size": 64, "num_heads": 2}, "linear_head_dim=48"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0.0"),
        ({"portrait_fusion": "concat"}, "portrait_fusion='concat'"),
        ({"audio_fusion": "none"}, "audio_fusion='none'"),
        ({"spatial_attention": "flash"}, "spatial_attention='flash'"),
        ({"prediction": "x0"}, "prediction='x0'"),
        ({"learned_variance": True}, "learned_variance needs prediction='epsilon'"),
        ({"clip_frames": 0}, "clip_frames=0"),
        ({"memory_frames": -1}, "memory_frames=-1"),
        ({"grid_size": (0, 8)}, r"grid_size=\(0, 8\)"),
        ({"grid_size": (8,)}, r"grid_size=\(8,\)"),
        ({"fps": 0.0}, "fps=0.0"),
        ({"fps": float("nan")}, "fps=nan must be > 0"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio=inf"),
        ({"audio_token_dim": 0}, "audio_token_dim=0 must be > 0"),
    ],
)
def test_a_denoiser_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiTConfig(**{**DIT["S"].to_dict(), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_block_types": ("ResBlock",)}, "is not one for each of 6 stages"),
        ({"decoder_block_types": ("Mamba",) * 6}, "must be one of ResBlock"),
        ({"encoder_layers_per_block": (0, 1, -1, 1, 1, 1)}, "encoder_layers_per_block="),
        ({"latent_channels": 0}, "latent_channels=0 must be > 0"),
        ({"attention_head_dim": 0}, "attention_head_dim=0 must be > 0"),
        ({"encoder_block_out_channels": ()}, "has 0 stages"),
        ({"decoder_block_out_channels": (0, 24, 48, 96, 192, 256)}, "must be > 0"),
        ({"encoder_block_types": ("EfficientViTBlock",) * 6}, "attention width 16"),
        ({"latent_channels": 48}, "latent_channels=48"),
        ({"downsample_block_type": "pool"}, "downsample_block_type='pool'"),
        ({"upsample_block_type": "bilinear"}, "upsample_block_type='bilinear'"),
        ({"decoder_norm_types": ("layer_norm",) * 6}, "must be one of rms_norm"),
        ({"decoder_conv_act_fn": "gelu"}, "decoder_conv_act_fn='gelu'"),
        ({"scaling_factor": 0.0}, "scaling_factor=0.0"),
        ({"latent_rgb_factors": ((0.0, 0.0, 0.0),)}, "needs 64 rows"),
    ],
)
def test_an_autoencoder_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    fields = {f.name: getattr(AUTOENCODER["demo"], f.name) for f in dataclasses.fields(AutoencoderConfig)}
    with pytest.raises(ConfigError, match=message):
        AutoencoderConfig(**{**fields, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AudioEncoderConfig(hidden_size=10, num_attention_heads=3), "num_attention_heads=3"),
        (lambda: AudioEncoderConfig(num_attention_heads=0), "num_attention_heads=0 must be > 0"),
        (lambda: AudioEncoderConfig(conv_stride=(5, 2, 0, 2, 2, 2, 2)), "conv_stride=.* must be > 0"),
        (lambda: AudioEncoderConfig(conv_dim=(), conv_kernel=(), conv_stride=()), "has 0 convolutions"),
        (lambda: AudioEncoderConfig(hidden_size=24), "num_conv_pos_embedding_groups=16"),
        (lambda: AudioEncoderConfig(conv_dim=(1, 2)), "differ in length"),
        (lambda: AudioEncoderConfig(feat_extract_norm="batch"), "feat_extract_norm='batch'"),
        (lambda: AudioProjectionConfig(window=4), "window=4 must be odd"),
        (lambda: AudioProjectionConfig(tokens=0), "tokens=0"),
    ],
)
def test_audio_parts_that_cannot_work_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_derived_numbers_follow_from_the_fields() -> None:
    assert AUTOENCODER["f128c512-in-1.0"].spatial_factor == 128
    assert DIT["demo"].bank_frames == 3
    assert dataclasses.replace(DIT["S"], prediction="epsilon", learned_variance=True).out_channels == 64
