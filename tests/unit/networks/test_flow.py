"""Flow by Gauss-Newton: known motions are found, and the warp is the one of an independent formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from letstalk_core.networks.flow import affine_flow, fit_affine, grow, places_led, pyramid_flow, shrink, warp

SIDE = 128


def scene(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A smooth picture known at any place: x, y in half pictures -> (1, 3, h, w)."""
    return torch.stack(
        [
            0.5 * torch.sin(9 * x + 2 * y) + 0.3 * torch.cos(13 * y),
            0.5 * torch.cos(11 * x - 7 * y),
            0.4 * torch.sin(15 * y + 3) + 0.3 * torch.sin(17 * x),
        ]
    )[None]


def places(side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    return axis[None].expand(side, side), axis[:, None].expand(side, side)


def pixels_off(found: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> float:
    """Mean distance, in pixels of the picture, of a flow from the true one; borders, which see less, left out."""
    error = torch.stack([found[0, 0] - x, found[0, 1] - y])[:, 6:-6, 6:-6]
    return float(error.square().sum(0).sqrt().mean()) * SIDE / 2


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.05, -0.03), (-0.12, 0.08)])
def test_a_translation_is_found(dx: float, dy: float) -> None:
    x, y = places()
    found = pyramid_flow(scene(x, y), scene(x - dx, y - dy), (64, 64))
    wanted = torch.full((64, 64), 1.0)
    assert pixels_off(found, wanted * dx, wanted * dy) < 0.25


def test_an_affine_motion_is_found() -> None:
    x, y = places()
    angle, zoom = 0.06, 1.05
    a, b = math.cos(angle) * zoom, math.sin(angle) * zoom  # the frame's place p is at M p in the other picture
    inverse = torch.linalg.inv(torch.tensor([[a, -b], [b, a]]))
    other = scene(inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y)
    found = pyramid_flow(scene(x, y), other, (64, 64))
    u, v = places(64)
    assert pixels_off(found, a * u - b * v - u, b * u + a * v - v) < 0.4


def test_each_frame_of_a_batch_has_its_own_flow() -> None:
    x, y = places()
    frames = torch.cat([scene(x + 0.06, y), scene(x - 0.04, y)])
    both = pyramid_flow(frames, scene(x, y), (64, 64))
    alone = [pyramid_flow(f[None], scene(x, y), (64, 64)) for f in frames]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-5, rtol=0)
    assert both[0, 0].mean() > 0.04 and both[1, 0].mean() < -0.02


def test_flat_pictures_do_not_move() -> None:
    flat = torch.full((2, 3, 64, 64), 0.3)
    assert pyramid_flow(flat, flat[:1] + 0.2, (32, 32)).abs().max() < 1e-4


def test_flow_of_a_picture_that_is_not_square_is_in_its_own_half_sides() -> None:
    x = ((torch.arange(192) + 0.5) * 2 / 192 - 1)[None].expand(96, 192)
    y = ((torch.arange(96) + 0.5) * 2 / 96 - 1)[:, None].expand(96, 192)
    found = pyramid_flow(scene(2 * x, y), scene(2 * (x - 0.05), y - 0.08), (48, 96))[..., 6:-6, 6:-6]
    assert abs(float(found[0, 0].mean()) - 0.05) < 0.006 and abs(float(found[0, 1].mean()) - 0.08) < 0.012


def test_warp_samples_where_the_flow_points() -> None:
    """Against numpy: bilinear between the four pixels round the place, edges repeated."""
    rng = np.random.default_rng(3)
    picture, flow = rng.standard_normal((5, 7)), rng.uniform(-1.2, 1.2, (2, 4, 6))
    wanted = np.zeros((4, 6))
    for i in range(4):
        for j in range(6):
            x = ((2 * j + 1) / 6 + flow[0, i, j]) * 7 / 2 - 0.5
            y = ((2 * i + 1) / 4 + flow[1, i, j]) * 5 / 2 - 0.5
            x, y = min(max(x, 0), 6), min(max(y, 0), 4)
            x0, y0 = min(int(x), 5), min(int(y), 3)
            u, v = x - x0, y - y0
            rows = picture[y0 : y0 + 2, x0 : x0 + 2]
            wanted[i, j] = np.array([1 - v, v]) @ rows @ np.array([1 - u, u])
    found = warp(torch.from_numpy(picture)[None, None].float(), torch.from_numpy(flow)[None].float())
    np.testing.assert_allclose(found[0, 0].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 48), (30, 31), (64, 96), (16, 24)])
def test_shrinking_keeps_means(size: tuple[int, int]) -> None:
    pictures = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    small = shrink(pictures, size)
    assert tuple(small.shape[-2:]) == size
    torch.testing.assert_close(small.mean((2, 3)), pictures.mean((2, 3)), atol=0.02, rtol=0)


def test_growing_keeps_a_slope() -> None:
    slope = places(8)[0][None, None]
    torch.testing.assert_close(grow(slope, (32, 32))[0, 0, :, 4:-4], places(32)[0][:, 4:-4])


def test_half_precision_pictures_give_the_flow_of_full_precision() -> None:
    x, y = places()
    a, b = scene(x, y), scene(x - 0.06, y)
    exact = pyramid_flow(a, b, (64, 64))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = pyramid_flow(a.bfloat16(), b.bfloat16(), (64, 64))
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).abs().mean()) * SIDE / 2 < 0.1


def test_one_piece_is_found_again_whatever_a_few_places_say() -> None:
    x = (torch.arange(64) * 2 + 1) / 64 - 1
    grid = torch.stack(torch.meshgrid(x, x, indexing="xy"))
    wanted = torch.tensor([[0.03, -0.05], [0.04, 0.02]])  # of x and y, for each component
    flow = (torch.einsum("ci,chw->ihw", wanted, grid) + torch.tensor([0.1, -0.06]).view(2, 1, 1))[None]
    places = torch.cartesian_prod(torch.linspace(-0.6, 0.6, 5), torch.linspace(-0.6, 0.6, 5))

    def fitted(flow: torch.Tensor, to: torch.Tensor, side: int = 64) -> torch.Tensor:
        return affine_flow(fit_affine(places_led(flow, places), to[None]), (side, side))

    found = fitted(flow, places)
    torch.testing.assert_close(found, flow, atol=3e-3, rtol=0)
    disturbed = flow.clone()
    disturbed[..., 40:, 24:40] += 0.3  # a mouth that opens
    found = fitted(disturbed, places, 128)
    assert found.shape == (1, 2, 128, 128)
    small = torch.nn.functional.avg_pool2d(found, 2)
    assert float((small - flow).abs().max()) < 0.03
    shifted = fitted(flow, places + torch.tensor([0.2, 0.0]))
    right = torch.tensor([0.2, 0.0]).view(1, 2, 1, 1).expand_as(flow)
    torch.testing.assert_close(shifted - flow, right, atol=3e-3, rtol=0)
