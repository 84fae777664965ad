"""Frame batches and tiles: the same result in bounded memory. Preview colours fitted to latents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.autoencoder.preview import fit_latent_preview
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
def test_tiles_cover_an_axis_and_overlap_at_least_as_asked(length: int, tile: int, data: st.DataObject) -> None:
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
def test_frames_in_batches_equal_frames_at_once() -> None:
    torch.manual_seed(0)
    model = AutoencoderDC(CONFIG).eval()
    model.init_weights()
    images = torch.rand(5, 3, 32, 64) * 2 - 1
    latents = model.encode(images)
    torch.testing.assert_close(model.encode_frames(images, batch=2), latents)
    torch.testing.assert_close(model.decode_frames(latents, batch=2), model.decode(latents))
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
    for encode, width in ((model.encode, 70), (lambda images: tiled_encode(model, images), 1000)):
        with pytest.raises(ConfigError, match=f"{width}x64 is not a multiple of 32"):
            encode(torch.zeros(1, 3, 64, width, device="meta"))


@pytest.mark.parametrize(("frames", "batch", "message"), [(0, 8, "no frames"), (2, 0, "batch=0")])
def test_batches_that_cannot_work_are_refused(frames: int, batch: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        map_frames(lambda x: x, torch.zeros(frames, 1), batch)


# preview colours


def test_a_linear_relation_between_latents_and_colours_is_found() -> None:
    latents = torch.randn(4, 3, 8, 8)
    colours = torch.einsum("n c h w, c k -> n k h w", latents, torch.eye(3) * 0.5) + 0.1
    factors, bias = fit_latent_preview(latents, torch.nn.functional.interpolate(colours, scale_factor=4))
    torch.testing.assert_close(torch.tensor(factors), torch.eye(3) * 0.5, rtol=0, atol=2e-3)  # the ridge
    torch.testing.assert_close(torch.tensor(bias), torch.full((3,), 0.1), rtol=0, atol=2e-3)


def test_one_small_picture_is_enough_for_finite_colours() -> None:
    factors, bias = fit_latent_preview(torch.randn(1, 128, 4, 4), torch.rand(1, 3, 256, 256))
    assert len(factors) == 128 and torch.isfinite(torch.tensor([*factors, bias])).all()
