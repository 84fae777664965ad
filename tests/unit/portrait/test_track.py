from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError, FaceNotFoundError
from letstalk_core.media.portrait.boxes import NO_FACE
from letstalk_core.media.portrait.crop import CropTransform
from letstalk_core.media.portrait.paste import PasteTrack, feather_mask
from letstalk_core.media.portrait.track import CropTrack, follow_face, steady_boxes

HEIGHT, WIDTH = 120, 160


def picture(seed: int = 0) -> Tensor:
    """Smooth, float in 0..1, with values between the 256 steps of a byte."""
    y, x = torch.arange(HEIGHT)[:, None] / HEIGHT, torch.arange(WIDTH)[None] / WIDTH
    channels = [0.2 + 0.5 * y + 0 * x, 0.8 - 0.6 * x + 0 * y, 0.5 + 0.3 * torch.sin(9 * x + 6 * y + seed)]
    return torch.stack(torch.broadcast_tensors(*channels), -1)


coordinates = st.floats(-20, 170, allow_nan=False)


@st.composite
def box_lists(draw: st.DrawFn) -> Tensor:
    """Boxes of a face that stays, moves or jumps, with gaps; at least one is there."""
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        x, y, w, h = draw(coordinates), draw(coordinates), draw(st.floats(1, 90)), draw(st.floats(1, 90))
        rows.append(NO_FACE if rows and draw(st.booleans()) else (x, y, x + w, y + h))
    return torch.tensor(rows, dtype=torch.float64)


@settings(max_examples=60)
@given(boxes=box_lists(), smoothing=st.floats(0, 9), margin=st.floats(0, 2), wide=st.sampled_from([64, 96, 128]))
def test_boxes_are_inside(boxes: Tensor, smoothing: float, margin: float, wide: int) -> None:
    track = CropTrack.around(boxes, (HEIGHT, WIDTH), (96, wide), margin, 0.1, smoothing)
    assert len(track) == len(boxes)
    assert list(track.faces) == boxes.isfinite().all(1).tolist()
    for crop in track.crops:
        assert 0 <= crop.x0 < crop.x1 <= WIDTH and 0 <= crop.y0 < crop.y1 <= HEIGHT


@given(count=st.integers(1, 40), smoothing=st.floats(0, 50), x=coordinates, side=st.floats(1, 99))
def test_smoothing_keeps_constant_boxes(count: int, smoothing: float, x: float, side: float) -> None:
    boxes = torch.tensor([[x, 3.3, x + side, 90.7]], dtype=torch.float64).repeat(count, 1)
    assert torch.equal(steady_boxes(boxes, smoothing), boxes)


@given(count=st.integers(2, 30), smoothing=st.floats(0.1, 8), gap=st.integers(0, 29))
def test_even_motion_does_not_lag_even_across_a_gap(count: int, smoothing: float, gap: int) -> None:
    boxes = torch.tensor([[i * 2.0, 5 + i, i * 2.0 + 50, 60 + i] for i in range(count)], dtype=torch.float64)
    holed = boxes.clone()
    if 0 < gap < count - 1:
        holed[gap] = torch.nan
    torch.testing.assert_close(steady_boxes(holed, smoothing), boxes)


def test_smoothing_takes_the_shaking_out() -> None:
    shaking = torch.tensor([[10.0 + (i % 2), 10, 60 + (i % 2), 60] for i in range(50)], dtype=torch.float64)
    steady = steady_boxes(shaking, 3)
    assert steady[10:40].std(0).max() < 0.02 < 0.4 < shaking[:, 0].std()


def test_no_average_goes_across_a_cut() -> None:
    boxes = torch.tensor([[0.0, 0, 20, 20]] * 10 + [[100.0, 80, 130, 110]] * 10, dtype=torch.float64)
    assert torch.equal(steady_boxes(boxes, 5), boxes)


def test_gaps_at_the_ends_take_the_nearest_box() -> None:
    boxes = torch.tensor([NO_FACE, (0, 0, 20, 20), NO_FACE], dtype=torch.float64)
    assert steady_boxes(boxes).tolist() == [[0, 0, 20, 20]] * 3


def test_without_any_face_there_is_no_track() -> None:
    with pytest.raises(FaceNotFoundError, match="any of the 2 frames"):
        steady_boxes(torch.tensor([NO_FACE] * 2))
    with pytest.raises(ConfigError, match="smoothing"):
        steady_boxes(torch.zeros(1, 4), -1)


def test_the_followed_face_stays_the_same_until_a_cut() -> None:
    small, large = [10.0, 10, 40, 40, 0.9], [100.0, 20, 150, 90, 0.8]
    larger = [12.0, 10, 92, 92, 0.9]
    weak = [0.0, 0, 160, 120, 0.3]
    frames = [[small, weak], [], [large, [12.0, 10, 42, 40, 0.7]], [[130.0, 60, 150, 110, 0.9]], [larger]]
    found = follow_face(torch.tensor(frame).reshape(-1, 5) for frame in frames)
    assert found[0].tolist() == small[:4]
    assert found[1].isnan().all()
    assert found[2].tolist() == [12, 10, 42, 40]
    assert found[3].tolist() == [130, 60, 150, 110]
    assert len(follow_face([])) == 0


@settings(max_examples=20)
@given(boxes=box_lists(), seed=st.integers(0, 99))
def test_pixels_outside_of_the_box_and_frames_without_a_face_stay_exactly(boxes: Tensor, seed: int) -> None:
    track = CropTrack.around(boxes, (HEIGHT, WIDTH), (32, 32), 0.2)
    paste = PasteTrack(track)
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(seed))
    for index, crop in enumerate(track.crops):
        image = picture(index)
        found = paste(index, noise, image)
        outside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
        if track.faces[index]:
            outside[crop.y0 : crop.y1, crop.x0 : crop.x1] = False
        assert torch.equal(found[outside], image[outside])
        assert found.dtype == image.dtype and bool((found >= 0).all() and (found <= 1).all())


def test_frames_of_another_shape_and_other_pictures_are_refused() -> None:
    track = CropTrack.centre((HEIGHT, WIDTH), (64, 64), frames=2)
    with pytest.raises(ConfigError, match="another shape than the crop of 64x64"):
        PasteTrack(track)(0, torch.zeros(64, 96, 3), picture())
    with pytest.raises(ConfigError, match="belongs to a picture of 160x120"):
        PasteTrack(track)(0, torch.zeros(64, 64, 3), torch.zeros(50, 50, 3))
    with pytest.raises(ConfigError, match="feather"):
        PasteTrack(track, feather=0.6)


def test_a_track_moves_to_a_scaled_picture() -> None:
    track = CropTrack.around(torch.tensor([[60.0, 40, 100, 90]]), (HEIGHT, WIDTH), (96, 96), 0.3)
    twice = track.resized((2 * HEIGHT, 2 * WIDTH))
    one, two = track.crops[0], twice.crops[0]
    assert (two.x0, two.y0, two.x1, two.y1) == (2 * one.x0, 2 * one.y0, 2 * one.x1, 2 * one.y1)
    assert twice.image_size == (2 * HEIGHT, 2 * WIDTH) and twice.size == track.size
    assert track.resized((HEIGHT, WIDTH)) == track
    with pytest.raises(ConfigError, match="another shape"):
        track.resized((HEIGHT, 2 * WIDTH))


@given(scale=st.floats(0.02, 8), x=st.integers(0, 150), side=st.integers(1, 100))
def test_a_scaled_box_stays_inside(scale: float, x: int, side: int) -> None:
    height, width = round(1200 * scale), round(1600 * scale)
    crop = CropTransform.around((x, x, x + side, x + side), (1200, 1600), (64, 64)).on_picture((height, width))
    assert (crop.image_height, crop.image_width) == (height, width)


# pasting stills


def paste_back(image: Tensor, crop: CropTransform, **options: Any) -> Callable[[Tensor], Tensor]:
    """What pastes frames (t, h, w, 3) of a crop into a picture."""
    paste = PasteTrack(CropTrack(crops=(crop,), faces=(True,)), **options)
    return lambda frames: torch.stack([paste(0, frame, image) for frame in frames])


BYTES = (picture() * 255).round().to(torch.uint8)
CROP = CropTransform.around((60, 40, 100, 90), (HEIGHT, WIDTH), (96, 96), margin=0.3)


@settings(deadline=None, max_examples=20)
@given(
    x=st.floats(0, 130),
    y=st.floats(0, 90),
    side=st.floats(8, 60),
    match=st.booleans(),
    scale=st.sampled_from((1, 2, 4)),
)
def test_pasting_what_was_cut_upscaled_or_not_changes_nothing(
    x: float, y: float, side: float, match: bool, scale: int
) -> None:
    crop = CropTransform.around((x, y, x + side, y + side), (HEIGHT, WIDTH), (96, 96))
    large = dataclasses.replace(crop, height=96 * scale, width=96 * scale).apply(BYTES)
    found = paste_back(BYTES, crop, match_colour=match)(large[None])
    assert found.dtype == torch.uint8 and (found[0].float() - BYTES).abs().max() <= 5


def test_the_middle_is_the_frame_itself() -> None:
    frames = torch.full((1, 96, 96, 3), 250, dtype=torch.uint8)
    found = paste_back(BYTES, CROP, match_colour=False)(frames)
    assert (found[0, (CROP.y0 + CROP.y1) // 2, (CROP.x0 + CROP.x1) // 2] == 250).all()


def test_a_colour_shift_of_the_model_is_undone() -> None:
    shifted = (CROP.apply(BYTES).float() * 0.9 + 14).to(torch.uint8)
    found = paste_back(BYTES, CROP)(shifted[None])
    plain = paste_back(BYTES, CROP, match_colour=False)(shifted[None])
    assert (found[0].float() - BYTES).abs().max() <= 6 < (plain[0].float() - BYTES).abs().max()


def test_the_colour_match_does_not_flicker() -> None:
    paste, frame = paste_back(BYTES, CROP), CROP.apply(BYTES)[None]
    first = paste(frame)
    paste((frame.float() * 0.5).to(torch.uint8))
    assert torch.equal(paste(frame), first)


def test_the_mask_is_soft_inside_the_picture_and_hard_at_its_border() -> None:
    inside = feather_mask(CROP, 0.2)
    assert inside.max() == 1 and inside[0].max() < 0.1 and inside[:, -1].max() < 0.1
    assert (inside.diff(dim=0).abs().max() < 0.15) and (inside >= 0).all()
    whole = CropTransform.centre((100, 100), (64, 64))
    assert (feather_mask(whole, 0.2) == 1).all()
    assert set(feather_mask(CROP, 0.0).unique().tolist()) == {1.0}
