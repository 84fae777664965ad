"""Pixels to the range of the networks and back."""

from __future__ import annotations

import torch

from letstalk_core.pixels import from_unit, to_unit


def test_every_value_survives_the_round_trip() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    unit = to_unit(images)
    assert (unit.shape, unit.dtype) == ((1, 3, 16, 16), torch.float32)
    assert (float(unit.min()), float(unit.max())) == (-1.0, 1.0)
    assert torch.equal(from_unit(unit), images)


def test_values_outside_the_range_are_cut_off_at_any_precision() -> None:
    unit = torch.tensor([-3.0, 0.0, 7.0]).view(3, 1, 1).bfloat16()
    assert from_unit(unit).tolist() == [[[0, 128, 255]]]


def test_the_memory_of_the_pixels_stays_channels_last() -> None:
    unit = to_unit(torch.zeros(2, 4, 4, 3, dtype=torch.uint8))
    assert unit.is_contiguous(memory_format=torch.channels_last)
