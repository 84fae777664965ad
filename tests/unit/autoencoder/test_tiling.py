"""Frame batches and tiles: the same result in bounded memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.autoencoder.tiling import Tiling, map_frames, tile_starts, tiled_decode, tiled_encode
from letstalk_core.networks.configs import AutoencoderConfig
from letstalk_core.networks.presets import AUTOENCODER

CONFIG = AUTOENCODER["demo"]


class Blocky:
    """Stands in for an autoencoder: pixels are averaged or repeated, so tiles cannot differ from the whole."""

    config: AutoencoderConfig = CONFIG

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def encode(self, x: Tensor) -> Tensor:
        self.sizes.append(tuple(x.shape))
        return torch.nn.functional.avg_pool2d(x, 32)

    def decode(self, z: Tensor) -> Tensor:
        self.sizes.append(tuple(z.shape))
        return torch.nn.functional.interpolate(z, scale_factor=32)


@given(length=st.integers(1, 60), tile=st.integers(1, 20), data=st.data())
def test_tiles_cover_an_axis_without_gaps_and_overlap_at_least_as_asked(
    length: int, tile: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0 and starts == sorted(set(starts))
    assert starts[-1] + tile == length or length <= tile
    assert all(b - a <= tile - overlap for a, b in zip(starts, starts[1:], strict=False))


@settings(max_examples=20, deadline=None)
@given(h=st.integers(1, 7), w=st.integers(1, 7), tile=st.integers(1, 4), data=st.data())
def test_tiles_that_agree_give_the_whole_back(h: int, w: int, tile: int, data: st.DataObject) -> None:
    tiling = Tiling(tile=32 * tile, overlap=32 * data.draw(st.integers(0, tile - 1)))
    images = torch.rand(1, 3, 32 * h, 32 * w, generator=torch.Generator().manual_seed(h * w))
    whole, tiled = Blocky(), Blocky()
    latents = whole.encode(images)
    torch.testing.assert_close(tiled_encode(tiled, images, tiling), latents)
    torch.testing.assert_close(tiled_decode(tiled, latents, tiling), whole.decode(latents))
    assert all(max(size[-2:]) <= tiling.tile for size in tiled.sizes)


def test_seams_of_tiles_that_disagree_are_linear_ramps() -> None:
    values = iter((0.0, 1.0))

    class Flat(Blocky):
        def decode(self, z: Tensor) -> Tensor:
            return torch.full((1, 3, 32 * z.shape[-2], 32 * z.shape[-1]), next(values))

    row = tiled_decode(Flat(), torch.zeros(1, 32, 2, 3), Tiling(tile=64, overlap=32))[0, 0, 0]
    torch.testing.assert_close(row[32:64], (torch.arange(32) + 0.5) / 32)
    assert row[:32].max() == 0 and row[64:].min() == 1


@torch.no_grad()
def test_tiled_decoding_stays_close_to_decoding_the_whole() -> None:
    torch.manual_seed(0)
    model = AutoencoderDC(CONFIG).eval()
    model.init_weights()
    latents = torch.randn(1, CONFIG.latent_channels, 3, 6)
    whole = model.decode(latents)
    tiled = model.decode_frames(latents, tiling=Tiling(tile=128, overlap=64))
    assert tiled.shape == whole.shape == (1, 3, 96, 192)
    assert (tiled - whole).abs().mean() < 0.1 * whole.std()  # a tile does not see beyond its edges


@torch.no_grad()
def test_frames_in_batches_equal_frames_at_once() -> None:
    torch.manual_seed(0)
    model = AutoencoderDC(CONFIG).eval()
    model.init_weights()
    images = torch.rand(5, 3, 32, 64) * 2 - 1
    latents = model.encode(images)
    torch.testing.assert_close(model.encode_frames(images, batch=2), latents)
    torch.testing.assert_close(model.decode_frames(latents, batch=2), model.decode(latents))


def test_no_call_sees_more_frames_than_the_batch() -> None:
    seen: list[int] = []
    map_frames(lambda x: (seen.append(len(x)), x)[1], torch.zeros(7, 1), 3)
    assert seen == [3, 3, 1]


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        (Tiling(tile=500), "tile=500"),
        (Tiling(tile=64, overlap=40), "multiples of 32"),
        (Tiling(tile=64, overlap=64), "smaller than tile=64"),
        (Tiling(tile=16, overlap=0), "tile=16"),
        (Tiling(tile=64, overlap=-32), "not negative"),
    ],
)
def test_tiles_that_cannot_work_are_refused(tiling: Tiling, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiled_decode(Blocky(), torch.zeros(1, 32, 9, 9), tiling)


def test_an_image_size_that_does_not_fit_is_refused_before_it_is_cut_into_tiles() -> None:
    model = AutoencoderDC(CONFIG, device="meta")
    with pytest.raises(ConfigError, match="1000x64 is not a multiple of 32"):
        tiled_encode(model, torch.zeros(1, 3, 64, 1000, device="meta"))


@pytest.mark.parametrize(("frames", "batch", "message"), [(0, 8, "no frames"), (2, 0, "batch=0")])
def test_batches_that_cannot_work_are_refused(frames: int, batch: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        map_frames(lambda x: x, torch.zeros(frames, 1), batch)


def test_every_factor_of_the_family_tiles() -> None:
    for name in ("f32c32-mix-1.0", "f64c128-mix-1.0", "f128c512-mix-1.0"):
        factor = AUTOENCODER[name].spatial_factor
        assert Tiling().cells(factor) == (512 // factor, 128 // factor)
    assert dataclasses.replace(Tiling(), tile=1024).cells(32) == (32, 4)
