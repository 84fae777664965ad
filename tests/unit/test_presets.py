"""Named shapes: the public models are what they are, and the demo parts fit each other."""

from __future__ import annotations

import pytest

from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.presets import AUDIO_ENCODER, AUDIO_PROJECTION, AUTOENCODER, DIT

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


def test_every_public_autoencoder_is_pinned() -> None:
    assert set(AUTOENCODER) == {*PUBLIC, "demo"}


@pytest.mark.parametrize(("name", "depth", "width", "heads"), [
    ("S",  12, 384,  6),
    ("B",  12, 768,  12),
    ("L",  24, 1024, 16),
    ("XL", 28, 1152, 16),
])  # fmt: skip
def test_denoisers_have_the_sizes_of_the_paper(name: str, depth: int, width: int, heads: int) -> None:
    config = DIT[name]
    assert (config.depth, config.hidden_size, config.num_heads) == (depth, width, heads)
    assert (config.linear_head_dim, config.mlp_ratio, config.in_channels, config.bank_frames) == (32, 4.0, 32, 2)


@pytest.mark.parametrize(("encoder", "projection", "denoisers"), [
    ("base", "base", ("S", "B", "L", "XL")),
    ("demo", "demo", ("demo",)),
])  # fmt: skip
def test_audio_parts_fit_each_other_and_their_denoisers(
    encoder: str, projection: str, denoisers: tuple[str, ...]
) -> None:
    states, tokens = AUDIO_ENCODER[encoder], AUDIO_PROJECTION[projection]
    assert (tokens.encoder_dim, tokens.layers) == (states.hidden_size, states.num_hidden_layers)
    assert {DIT[name].audio_token_dim for name in denoisers} == {tokens.token_dim}


def test_the_demo_denoiser_fits_the_demo_autoencoder() -> None:
    autoencoder, dit = AUTOENCODER["demo"], DIT["demo"]
    side = autoencoder.image_size // autoencoder.spatial_factor
    assert dit.grid_size == (side, side)
    assert dit.in_channels == autoencoder.latent_channels


def test_the_demo_autoencoder_is_small_enough_to_ship() -> None:
    assert count(AutoencoderDC(AUTOENCODER["demo"], device="meta")) < 12_000_000
