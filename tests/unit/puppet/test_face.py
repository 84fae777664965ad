"""The face of a portrait as a layer: what the face finder reads of it is what it was told."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.media.portrait.find import Face, find_face
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.puppet.face import PortraitFace
from letstalk_core.media.puppet.topology import EYES
from letstalk_core.networks.face_points import RIGID
from letstalk_core.networks.flow import places_led
from letstalk_core.networks.load import DEMO_FOLDER
from letstalk_core.networks.motion_channels import MOTION
from letstalk_core.pixels import from_unit, to_unit


@lru_cache
def portrait(name: str, side: int = 256) -> tuple[Tensor, Face]:
    image = load_portrait(DEMO_FOLDER / "portraits" / f"{name}.jpg")
    picture = F.interpolate(to_unit(image[None]), size=side, mode="bicubic", antialias=True).clamp(-1, 1)
    return picture, find_face(from_unit(picture)[0])


def told(**curves: float) -> Tensor:
    row = torch.zeros(1, len(MOTION))
    for name, value in curves.items():
        row[:, MOTION.index(name)] = value
    return row


def shown(picture: Tensor, face: PortraitFace, **curves: float) -> Tensor:
    layer = face(told(**curves)).pictures
    return torch.lerp(picture, layer[:, :3], layer[:, 3:])


def read(picture: Tensor) -> Face:
    return find_face(from_unit(picture)[0])


@pytest.mark.parametrize("name", ["eva", "imani", "kofi"])
def test_jaw_opens_the_mouth_and_blink_shuts_the_eyes(name: str) -> None:
    picture, found = portrait(name)
    face = PortraitFace(picture, found.points)
    rest = read(shown(picture, face))
    half, wide = (read(shown(picture, face, jaw=jaw)).mouth_opening for jaw in (0.4, 0.9))
    assert rest.mouth_opening < half < wide
    assert wide > 0.12  # of the eye distance
    shut = read(shown(picture, face, blink=1.0))
    assert sum(shut.eye_openings) < 0.6 * sum(rest.eye_openings)


@pytest.mark.parametrize(("name", "least"), [("eva", 0.63), ("finn", 0.55), ("imani", 0.70), ("jamal", 0.63)])
def test_the_shadow_of_the_brow_does_not_come_down_with_the_lid(name: str, least: float) -> None:
    picture, found = portrait(name)
    light = shown(picture, PortraitFace(picture, found.points), blink=1.0)[0].mean(0) / 2 + 0.5
    shares = []
    for eye in EYES:
        width = float((found.points[eye.corners[0], :2] - found.points[eye.corners[1], :2]).norm())
        middle = float(found.points[list(eye.corners), 0].mean())
        columns = slice(int(middle - 0.3 * width), int(middle + 0.3 * width))
        top, bottom = int(found.points[list(eye.upper), 1].min()), int(found.points[list(eye.lower), 1].max())
        below = light[bottom + 2 : bottom + int(0.35 * width), columns]
        shares.append(float(light[top:bottom, columns].mean() / below.mean()))
    assert sum(shares) / 2 > least


def test_lashes_that_stand_up_are_not_spread_over_a_shut_lid() -> None:
    picture, found = portrait("eva", 512)
    painted = picture.clone()
    eye = EYES[0]
    for x, y in found.points[list(eye.upper), :2].long().tolist():
        painted[..., y - 9 : y - 1, x : x + 2] = -0.8
    outline = found.points[[*eye.upper, *eye.lower], :2].long()
    (x0, y0), (x1, y1) = outline.amin(0).tolist(), outline.amax(0).tolist()
    lid = (0, slice(None), slice(y0, y1), slice(x0, x1))
    shut, lashes = (shown(one, PortraitFace(one, found.points), blink=1.0) for one in (picture, painted))
    assert float((painted - picture).abs().max()) > 0.5
    assert float((lashes - shut)[lid].abs().mean()) < 0.05


def test_gaze_moves_the_irises_and_pose_is_left_to_the_frame() -> None:
    picture, found = portrait("eva")
    face = PortraitFace(picture, found.points)
    aside = read(shown(picture, face, gaze_x=1.0)).points[[468, 473], 0]
    ahead = read(shown(picture, face)).points[[468, 473], 0]
    assert (aside - ahead).mean() > 0.5  # pixels
    still = face(told()).pictures
    moved = face(told(roll=0.2, shift_x=0.1, scale=1.3)).pictures
    torch.testing.assert_close(moved, still)


def test_a_turned_head_is_drawn_and_says_where_its_places_went() -> None:
    picture, found = portrait("eva")
    layer = PortraitFace(picture, found.points)(told(yaw=0.5))
    turned = read(torch.lerp(picture, layer.pictures[:, :3], torch.ones(1)))
    assert turned.yaw > found.yaw + 5  # of ten degrees
    nose, corner = RIGID.index(1), RIGID.index(33)
    step = (layer.drawn - layer.places)[0, :, 0]
    assert step[nose] > step[corner] + 0.01
    seen = (turned.points[[1, 33], 0] - found.points[[1, 33], 0]) / 128
    torch.testing.assert_close(step[[nose, corner]], seen, atol=0.04, rtol=0)


def test_the_frame_is_told_the_whole_pose_unless_nobody_tells_it() -> None:
    picture, found = portrait("eva")
    face = PortraitFace(picture, found.points)
    shifted, larger = (face(pose) for pose in (told(shift_x=0.05, shift_y=-0.03), told(scale=0.1, roll=0.2)))
    assert shifted.told is not None and larger.told is not None
    places = shifted.places
    step = torch.tensor([0.1, -0.06]).expand_as(places)  # halves of the picture
    torch.testing.assert_close(places_led(shifted.told, places)[0] - places, step, atol=5e-3, rtol=0)
    spread = [(at - at.mean(0)).norm(dim=1) for at in (places_led(larger.told, places)[0], places)]
    torch.testing.assert_close(spread[0], 1.1 * spread[1], atol=8e-3, rtol=0)
    assert PortraitFace(picture, found.points, pose_told=False)(told(yaw=0.3)).told is None


def test_the_chin_goes_with_the_jaw_and_the_edges_of_the_picture_stay() -> None:
    picture, found = portrait("eva")
    layers = PortraitFace(picture, found.points)(told(jaw=1.0))
    assert layers.told is not None
    x, y = (found.points[152, :2] / 4).long().tolist()  # the chin, in cells
    down = -layers.told[0, 1] * 128  # pixels
    assert float(down[y - 1, x]) > 4 and float(down[: y // 2].abs().max()) < 1
    assert float(down[:, [0, -1]].abs().max()) < 0.5 and float(down[[0, -1]].abs().max()) < 0.5


def test_a_person_is_told_from_a_plain_background() -> None:
    picture, found = portrait("goro")
    around = PortraitFace(picture, found.points).around
    x0, y0, x1, y1 = (int(v) for v in found.box)
    assert around.person.shape == around.still.shape == (1, 1, 256, 256)
    assert float(around.still[..., y0:y1, x0:x1].max()) < 0.01
    assert float(around.person[..., y0 + 20 : (y0 + y1) // 2, x0 + 30 : x1 - 30].min()) > 0.95
    corners = (..., slice(16), [*range(16), *range(240, 256)])
    assert float(around.still[corners].min()) > 0.95 and float(around.person[corners].max()) < 0.05
    cut = PortraitFace(picture[..., 40:216], found.points - torch.tensor([40.0, 0.0, 0.0])).around
    assert cut.still.shape[-2:] == (256, 176)


def test_what_is_far_from_the_face_is_not_covered() -> None:
    picture, found = portrait("eva")
    cover = PortraitFace(picture, found.points)(told()).pictures[0, 3]
    x0, y0, x1, y1 = (int(v) for v in found.box)
    assert cover[(y0 + y1) // 2, (x0 + x1) // 2] == 1
    assert cover[: max(1, y0 - 4)].max() == 0
    assert cover[:, : max(1, x0 - 4)].max() == cover[:, x1 + 4 :].max() == 0


def test_large_portraits_and_small_ones_have_the_same_face() -> None:
    small, found = portrait("eva")
    large, _ = portrait("eva", 768)  # larger than faces are drawn
    layers = [
        PortraitFace(picture, found.points * (picture.shape[-1] / 256))(told(jaw=0.5)).pictures
        for picture in (small, large)
    ]
    assert layers[1].shape[-2:] == (768, 768)
    shrunk = F.interpolate(layers[1], size=256, mode="area")
    assert float((shrunk - layers[0]).abs().mean()) < 0.02


def test_a_portrait_that_is_not_square_keeps_its_shape() -> None:
    picture, found = portrait("eva")
    cut = picture[..., 40:216]
    points = found.points - torch.tensor([40.0, 0.0, 0.0])
    layer = PortraitFace(cut, points)(told(jaw=0.6)).pictures
    whole = PortraitFace(picture, found.points)(told(jaw=0.6)).pictures[..., 40:216]
    assert layer.shape == whole.shape
    assert float((layer - whole)[..., 60:-60, 40:-40].abs().mean()) < 0.02
