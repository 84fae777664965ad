"""The way from a whole photograph to its crop and back."""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import FaceNotFoundError
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.scene import PastingSink, Scene
from letstalk_core.networks.load import DEMO_FOLDER

from .pictures import PORTRAITS

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
