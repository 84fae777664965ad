"""Crops and sizes of pictures, and boxes of faces in the many forms in which nodes give them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.portrait.boxes import boxes_of_masks, parse_boxes
from letstalk_core.media.portrait.crop import CropTransform, fit_to, resize

sides = st.integers(32, 900)
sizes = st.tuples(st.sampled_from([64, 96, 256]), st.sampled_from([64, 128, 256]))


@st.composite
def crops(draw: st.DrawFn) -> CropTransform:
    height, width = draw(sides), draw(sides)
    x0, y0 = draw(st.floats(-20, width - 5)), draw(st.floats(-20, height - 5))
    box = (x0, y0, x0 + draw(st.floats(1, width)), y0 + draw(st.floats(1, height)))
    margin, raise_by = draw(st.floats(0, 2)), draw(st.floats(-0.5, 0.5))
    return CropTransform.around(box, (height, width), draw(sizes), margin, raise_by)


@given(crops())
def test_a_crop_lies_inside_the_picture_and_keeps_its_shape(crop: CropTransform) -> None:
    assert 0 <= crop.x0 < crop.x1 <= crop.image_width and 0 <= crop.y0 < crop.y1 <= crop.image_height
    across, down = crop.scale
    shorter = min(crop.x1 - crop.x0, crop.y1 - crop.y0)
    assert abs(across / down - 1) <= 1.1 / shorter + 1e-6  # whole pixels


@given(crops())
def test_points_go_to_the_crop(crop: CropTransform) -> None:
    corners = torch.tensor([[crop.x0, crop.y0], [crop.x1, crop.y1]], dtype=torch.float64)
    expected = torch.tensor([[0, 0], [crop.width, crop.height]], dtype=torch.float64)
    torch.testing.assert_close(crop.to_crop(corners), expected)


@given(image=st.tuples(sides, sides), size=sizes)
def test_the_centre_crop_is_the_largest_and_in_the_middle(image: tuple[int, int], size: tuple[int, int]) -> None:
    crop = CropTransform.centre(image, size)
    assert crop.x1 - crop.x0 == image[1] or crop.y1 - crop.y0 == image[0]
    assert abs(crop.x0 - (image[1] - crop.x1)) <= 1 and abs(crop.y0 - (image[0] - crop.y1)) <= 1


def test_the_face_is_in_the_crop_with_room_around_it() -> None:
    crop = CropTransform.around((200, 150, 300, 270), (600, 800), (256, 256), margin=0.5, raise_by=0.1)
    assert (crop.x1 - crop.x0, crop.y1 - crop.y0) == (240, 240)
    assert (crop.x0 + crop.x1) / 2 == 250 and (crop.y0 + crop.y1) / 2 == 198


def test_a_point_is_found_where_its_pixels_are() -> None:
    image = torch.zeros(200, 300, 3, dtype=torch.uint8)
    image[80:84, 120:124] = 255
    crop = CropTransform.around((90, 50, 170, 130), (200, 300), (256, 256))
    found = crop.apply(image)[..., 0].float()
    weights = found / found.sum()
    y = (weights.sum(1) * (torch.arange(256) + 0.5)).sum()
    x = (weights.sum(0) * (torch.arange(256) + 0.5)).sum()
    torch.testing.assert_close(torch.stack([x, y]), crop.to_crop(torch.tensor([122.0, 82.0])), rtol=0, atol=0.5)


@settings(deadline=None, max_examples=25)
@given(image=st.tuples(sides, sides), size=sizes)
def test_fit_to_gives_the_wanted_size(image: tuple[int, int], size: tuple[int, int]) -> None:
    found = fit_to(torch.full((*image, 3), 77, dtype=torch.uint8), size)
    assert found.shape == (*size, 3) and found.dtype == torch.uint8 and found.unique().tolist() == [77]


def test_shrinking_is_antialiased() -> None:
    stripes = torch.zeros(512, 512, 3, dtype=torch.uint8)
    stripes[:, ::2] = 255
    found = fit_to(stripes, (64, 64)).float()
    assert (found[4:-4, 4:-4] - 127.5).abs().max() < 6


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(24, 36), (90, 100)])
def test_resizing_equals_pillows(mode: str, size: tuple[int, int]) -> None:
    """To 1 level: Pillow rounds between rows and columns, and cuts off, hence no extreme colours."""
    picture = torch.randint(64, 192, (60, 80, 3), dtype=torch.uint8)
    expected = Image.fromarray(picture.numpy()).resize(size[::-1], Image.Resampling[mode.upper()])
    assert (resize(picture, size, mode).int() - torch.from_numpy(np.array(expected)).int()).abs().max() <= 1


def test_resizing_works_on_batches_and_copies_what_needs_no_change() -> None:
    frames = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    assert torch.equal(resize(frames, (16, 20))[1], resize(frames[1], (16, 20)))
    same = resize(frames, (32, 48))
    assert torch.equal(same, frames) and same.data_ptr() != frames.data_ptr()


def test_impossible_crops_are_refused() -> None:
    good = CropTransform.centre((100, 100), (64, 64))
    for change in ({"x0": -1}, {"x1": 101}, {"y0": 100}, {"height": 0}):
        with pytest.raises(ConfigError):
            dataclasses.replace(good, **change)
    nan, inf = float("nan"), float("inf")
    for box in ((10, 10, 10, 20), (10, 10, 20, 5), (nan, 0, 1, 1), (0, 0, inf, 1)):
        with pytest.raises(ConfigError, match="face box"):
            CropTransform.around(box, (100, 100), (64, 64))
    for margin in (-1.0, nan):
        with pytest.raises(ConfigError, match="margin"):
            CropTransform.around((1, 1, 9, 9), (100, 100), (64, 64), margin)
    with pytest.raises(ConfigError, match="at least 1x1"):
        fit_to(torch.zeros(64, 64, 3, dtype=torch.uint8), (0, 64))


@pytest.mark.parametrize("bad", [torch.zeros(64, 64, 3), torch.zeros(3, 64, 64, dtype=torch.uint8)])
def test_pictures_of_another_shape_or_type_are_refused(bad: Tensor) -> None:
    with pytest.raises(ConfigError, match="needs uint8"):
        fit_to(bad, (32, 32))
    with pytest.raises(ConfigError, match="belongs to a picture of 100x100"):
        CropTransform.centre((100, 100), (64, 64)).apply(torch.zeros(64, 64, 3, dtype=torch.uint8))


# boxes of faces


SIZE = (100, 200)  # height, width


def test_the_box_of_a_mask_is_what_it_marks() -> None:
    masks = torch.zeros(2, 100, 200)
    masks[0, 10:30, 50:90] = 1
    found = boxes_of_masks(masks, SIZE)
    assert found[0].tolist() == [50, 10, 90, 30]
    assert found[1].isnan().all()
    half = torch.nn.functional.avg_pool2d(masks[:1], 2)  # a mask of another size is scaled
    assert boxes_of_masks(half, SIZE)[0].tolist() == [50, 10, 90, 30]


def test_a_mask_of_another_shape_is_refused_unless_it_is_empty() -> None:
    with pytest.raises(ConfigError, match="64x64 pixels, the picture 200x100"):
        boxes_of_masks(torch.ones(64, 64), SIZE)
    assert boxes_of_masks(torch.zeros(64, 64), SIZE).isnan().all()
    with pytest.raises(ConfigError, match="needs"):
        boxes_of_masks(torch.ones(1, 1, 100, 200), SIZE)


@pytest.mark.parametrize(
    "value",
    [
        (50, 10, 40, 20),
        [50.0, 10, 40, 20],
        torch.tensor([50, 10, 40, 20]),
        np.array([[50, 10, 40, 20]]),
        [torch.tensor([50.0, 10, 40, 20])],
        {"x": 50, "y": 10, "width": 40, "height": 20},
        [[(50, 10, 40, 20), (0, 0, 5, 5)]],  # all faces of the frame
        [(0, 0, 5, 5), (50, 10, 40, 20)],
    ],
)
def test_one_box_comes_in_many_forms(value: Any) -> None:
    assert parse_boxes(value, 1, SIZE).tolist() == [[50, 10, 90, 30]]


def test_one_box_serves_all_frames_and_a_frame_may_have_none() -> None:
    assert parse_boxes((50, 10, 40, 20), 3, SIZE).tolist() == [[50, 10, 90, 30]] * 3
    found = parse_boxes([(0, 0, 5, 5), None, [], [(1, 1, 5, 5), (1, 1, 9, 9)]], 4, SIZE)
    assert found[1:3].isnan().all()
    assert found[[0, 3]].tolist() == [[0, 0, 5, 5], [1, 1, 10, 10]]


def test_what_sticks_out_is_cut_off() -> None:
    assert parse_boxes((-10, 90, 40, 40), 1, SIZE).tolist() == [[0, 90, 30, 100]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((300, 10, 40, 20), "outside of the picture of 200x100"),
        ((30, 10, 0, 20), "is empty"),
        ((30, 10, math.nan, 20), "is empty"),
        ((30, 10, 40), "is not a box"),
        ("face", "is not a box"),
        (None, "is not a box"),
        ({"x": 1}, "is not a box"),
        ([[["a", "b"]]], "is not a box"),
    ],
)
def test_bad_boxes_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_boxes(value, 1, SIZE)
    with pytest.raises(ConfigError, match="boxes of 2 frames, but there are 3"):
        parse_boxes([(1, 1, 5, 5)] * 2, 3, SIZE)
