from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from letstalk_core.errors import ConfigError
from letstalk_core.media.portrait.boxes import boxes_of_masks, parse_boxes

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
