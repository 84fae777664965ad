"""What is left of a portrait in the picture that an autoencoder makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.portrait.crop import fit_to
from letstalk_core.media.portrait.find import find_face
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.likeness import FAR, compare_portrait, far_from_portrait
from letstalk_core.networks.face_points import EYES, LIPS

from .conftest import PHOTOGRAPHS


def smeared(image: Tensor, pixels: int) -> Tensor:
    x = image.permute(2, 0, 1)[None].float()
    for _ in range(3):
        x = F.avg_pool2d(F.pad(x, (pixels // 2,) * 4, mode="replicate"), pixels, 1)
    return x[0].permute(1, 2, 0).round().to(torch.uint8)


def without(image: Tensor, group: tuple[int, ...]) -> Tensor:
    """The picture with skin of the cheek where some points of the face are."""
    points = find_face(image).points
    low, high = points[list(group), :2].amin(0) - 8, points[list(group), :2].amax(0) + 8
    x, y = points[205, :2].round().int().tolist()
    (x0, y0), (x1, y1) = low.int().tolist(), high.int().tolist()
    result = image.clone()
    result[y0:y1, x0:x1] = image[y - 4 : y + 4, x - 4 : x + 4].float().mean((0, 1)).to(torch.uint8)
    return result


@pytest.fixture(scope="module", params=PHOTOGRAPHS[::4], ids=lambda path: path.stem)
def portrait(request: pytest.FixtureRequest) -> Tensor:
    path: Path = request.param
    return fit_to(load_portrait(path), (256, 256))


def test_a_portrait_is_like_itself_and_the_less_the_more_it_is_smeared(portrait: Tensor) -> None:
    scores = [compare_portrait(portrait, smeared(portrait, n)).score for n in (1, 3, 5, 9)]
    assert scores == sorted(scores, reverse=True) and scores[0] == 1
    assert far_from_portrait(scores[0]) is None
    assert scores[-1] < FAR and "smeared" in str(far_from_portrait(scores[-1]))


def test_brightness_and_colour_are_not_what_an_autoencoder_loses(portrait: Tensor) -> None:
    shifted = (portrait.float() * 0.8 + 30).round().to(torch.uint8)
    assert compare_portrait(portrait, shifted).score > 0.85


@pytest.mark.slow
def test_missing_and_moved_features_count(portrait: Tensor) -> None:
    whole = compare_portrait(portrait, portrait)
    for group in (LIPS, EYES[0] + EYES[1]):
        assert compare_portrait(portrait, without(portrait, group)).score < 0.7 * whole.score
    face = find_face(portrait)
    far = torch.roll(portrait, round(0.5 * face.size), 1)
    assert compare_portrait(portrait, far).points == 0


def test_a_face_that_is_gone_scores_nothing_and_without_one_pixels_alone_count(portrait: Tensor) -> None:
    grey = torch.full_like(portrait, 128)
    assert compare_portrait(portrait, grey).score == 0
    stripes = (torch.arange(96)[:, None, None] // 4 % 2 * 255).expand(96, 64, 3).to(torch.uint8)
    assert compare_portrait(stripes, stripes) == (1, 1) and compare_portrait(stripes, 255 - stripes).score == 0
    assert compare_portrait(grey, grey).score == 1


def test_pictures_are_bytes(portrait: Tensor) -> None:
    with pytest.raises(ConfigError, match="needs uint8"):
        compare_portrait(portrait, portrait.float())
