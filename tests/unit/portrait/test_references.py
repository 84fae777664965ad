"""References: other pictures of a person in the framing of the portrait."""

from __future__ import annotations

import pytest
import torch

from letstalk_core.errors import FaceNotFoundError
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.references import align_references

from .pictures import PORTRAITS

PORTRAIT = load_portrait(PORTRAITS[0])


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean difference of the middles, where the face is, at the portrait's size."""
    middle = slice(PORTRAIT.shape[0] // 4, 3 * PORTRAIT.shape[0] // 4)
    scaled = resize(a, (PORTRAIT.shape[0], PORTRAIT.shape[1]))
    return float((scaled.float() - b.float())[middle, middle].abs().mean())


@pytest.mark.parametrize(("side", "x", "y"), [(300, 90, 40), (180, 10, 120), (256, 0, 0)])
def test_another_framing_becomes_that_of_the_portrait(side: int, x: int, y: int) -> None:
    picture = torch.full((440, 520, 3), 128, dtype=torch.uint8)
    picture[y : y + side, x : x + side] = resize(PORTRAIT, (side, side))
    (found,) = align_references({"other": picture}, PORTRAIT)
    assert abs(found.shape[0] - side) <= 8 and found.shape[0] == found.shape[1]  # in its own resolution
    assert 3 * off(found, PORTRAIT) < off(picture, PORTRAIT)  # drawn edges: a pixel beside it gives 8


def test_a_much_finer_picture_is_scaled_down_and_what_lies_outside_goes_on() -> None:
    large = resize(PORTRAIT, (4 * PORTRAIT.shape[0], 4 * PORTRAIT.shape[1]))
    (found,) = align_references({"other": large[100:, :]}, PORTRAIT)
    assert abs(found.shape[0] - 2 * PORTRAIT.shape[0]) <= 8
    assert torch.equal(found[0], found[10]) and off(found, PORTRAIT) < 10


def test_a_picture_without_a_face_is_named() -> None:
    grey = torch.full((200, 200, 3), 128, dtype=torch.uint8)
    with pytest.raises(FaceNotFoundError, match=r"^smile\.png: no face was found"):
        align_references({"smile.png": grey}, PORTRAIT)
    with pytest.raises(FaceNotFoundError, match="^the portrait: no face"):
        align_references({"smile.png": PORTRAIT}, grey)
