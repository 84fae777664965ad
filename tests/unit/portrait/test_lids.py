"""The portrait's lids, drawn down over its eyes, as the face finder then reads them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from letstalk_core.media.portrait.find import Face, find_face
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.lids import Lids
from letstalk_core.networks.load import DEMO_FOLDER
from letstalk_core.pixels import from_unit, to_unit


def portrait(name: str) -> tuple[Tensor, Face]:
    image = load_portrait(DEMO_FOLDER / "portraits" / f"{name}.jpg")
    return image, find_face(image)


def with_lids(image: Tensor, face: Face, amount: float) -> Tensor:
    layer = Lids(to_unit(image[None]), face.points)(amount)
    assert layer is not None
    return from_unit(torch.lerp(to_unit(image[None]), layer[:, :3], layer[:, 3:]))[0]


@pytest.mark.parametrize("name", ["eva", "finn", "imani", "kofi"])
def test_eyes_are_shut_at_one_and_half_open_between(name: str) -> None:
    image, face = portrait(name)
    openings = [sum(find_face(with_lids(image, face, amount)).eye_openings) / 2 for amount in (0.1, 0.5, 1.0)]
    assert openings[0] > openings[1] > openings[2]
    assert openings[2] < 0.6 * sum(face.eye_openings) / 2


def test_open_lids_have_no_layer() -> None:
    image, face = portrait("eva")
    lids = Lids(to_unit(image[None]), face.points)
    assert [lids(amount) for amount in (0.0, -1.0, math.nan, 0.01)] == [None] * 4


def test_only_the_eyes_are_covered() -> None:
    image, face = portrait("eva")
    layer = Lids(to_unit(image[None]), face.points)(1.0)
    assert layer is not None
    rows, columns = layer[0, 3].nonzero().unbind(1)
    x0, y0, x1, y1 = face.box
    assert rows.min() > y0
    assert rows.max() < (y0 + y1) / 2 + 0.1 * (y1 - y0)  # no nose
    assert columns.min() >= x0
    assert columns.max() <= x1
    torch.testing.assert_close(layer[:, :3] * (layer[:, 3:] == 0), to_unit(image[None]) * (layer[:, 3:] == 0))


def test_the_layer_shuts_any_size_of_the_picture_alike() -> None:
    image, face = portrait("eva")
    large = to_unit(image[None])
    small = torch.nn.functional.interpolate(large, scale_factor=0.5, mode="area")
    found = [Lids(large, face.points)(1.0), Lids(small, face.points[:, :2] / 2)(1.0)]
    assert found[0] is not None
    assert found[1] is not None
    shrunk = torch.nn.functional.interpolate(found[0], scale_factor=0.5, mode="area")
    assert float((shrunk - found[1]).abs().mean()) < 0.01


def test_a_face_at_the_edge_of_its_picture_is_no_fault() -> None:
    image, face = portrait("eva")
    left = int(face.points[33, 0])  # through an eye
    layer = Lids(to_unit(image[None, :, left:]), face.points - torch.tensor([float(left), 0, 0]))(1.0)
    assert layer is not None
    assert layer.shape[-1] == image.shape[1] - left
    assert torch.isfinite(layer).all()
