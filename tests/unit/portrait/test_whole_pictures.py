"""The way from a whole photograph to its crop and back."""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import FaceNotFoundError
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.references import align_references
from letstalk_core.media.portrait.scene import PastingSink, Scene
from letstalk_core.networks.load import DEMO_FOLDER

from .conftest import PORTRAITS

SIZE = (256, 256)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.find(load_portrait(DEMO_FOLDER / "scenes" / "studio.png"), SIZE)


def test_the_crop_holds_the_face_in_the_size_that_models_know(scene: Scene) -> None:
    assert scene.size == (720, 1280) and not scene.is_whole
    again = Scene.find(scene.portrait, SIZE)
    assert again.is_whole and tuple(scene.portrait.shape) == (256, 256, 3)


def test_a_portrait_is_taken_whole() -> None:
    for path in PORTRAITS:
        image = load_portrait(path)
        found = Scene.find(image, SIZE)
        assert found.is_whole and torch.equal(found.portrait, image)


def test_frames_go_back_to_where_they_came_from(scene: Scene) -> None:
    c = scene.crop
    whole = scene(torch.stack([scene.portrait, 255 - scene.portrait]))
    assert whole.shape == (2, 720, 1280, 3)
    outside = torch.ones(720, 1280, dtype=torch.bool)
    outside[c.y0 : c.y1, c.x0 : c.x1] = False
    assert torch.equal(whole[1][outside], scene.picture[outside])
    assert (whole[0].float() - scene.picture.float()).abs().mean() < 1
    assert (whole[1] != scene.picture).any(-1)[~outside].float().mean() > 0.6
    assert torch.equal(scene(scene.portrait[None])[0], whole[0])  # alone or among others: a run may be continued


def test_any_detector_of_boxes_can_be_put_in() -> None:
    picture = torch.zeros(400, 700, 3, dtype=torch.uint8)

    def detector(image: Tensor) -> Tensor:
        return torch.tensor([[100.0, 100.0, 180.0, 200.0, 0.9]])

    crop = Scene.find(picture, SIZE, detector).crop
    assert crop.y1 - crop.y0 == 180 and abs((crop.x0 + crop.x1) / 2 - 140) <= 1
    with pytest.raises(FaceNotFoundError, match="no face"):
        Scene.find(picture, SIZE)


def test_its_fingerprint_tells_pictures_and_crops_apart(scene: Scene) -> None:
    other = scene.picture.clone()
    other[0, 0, 0] ^= 1
    prints = {
        Scene(p, c).fingerprint
        for p in (scene.picture, other)
        for c in (scene.crop, scene.crop.centre(scene.size, SIZE))
    }
    assert len(prints) == 4 and Scene(scene.picture.clone(), scene.crop).fingerprint in prints


def test_a_sink_of_whole_pictures_gets_them_in_order(scene: Scene) -> None:
    inner = Mock()
    sink = PastingSink(inner, scene)
    frames = torch.stack([scene.portrait // 8 * k for k in range(6)])
    sink.write(frames)
    sink.close(partial=True)
    sink.abort()
    written = torch.cat([call.args[0] for call in inner.write.call_args_list])
    assert torch.equal(written, scene(frames))
    assert inner.mock_calls[-2:] == [call.close(partial=True), call.abort()]


# other pictures of the person, in the framing of the portrait


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
