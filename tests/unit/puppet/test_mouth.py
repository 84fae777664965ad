"""What is seen between the lips: a portrait's own teeth where it shows them, drawn ones elsewhere."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.media.portrait.find import find_face
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.puppet.face import PortraitFace
from letstalk_core.media.puppet.geometry import EXTENT
from letstalk_core.media.puppet.render import Pose
from letstalk_core.networks.load import DEMO_FOLDER
from letstalk_core.networks.motion_channels import MOTION
from letstalk_core.pixels import from_unit, to_unit

SMILING = "imani"  # with open lips
CLOSED = ("eva", "finn", "goro", "jamal", "kofi")


@lru_cache
def person(name: str) -> tuple[Tensor, PortraitFace, tuple[slice, slice]]:
    """The portrait (1, 3, 256, 256) in -1..1, its face, rows and columns of its mouth."""
    image = load_portrait(DEMO_FOLDER / "portraits" / f"{name}.jpg")
    picture = F.interpolate(to_unit(image[None]), size=256, mode="bicubic", antialias=True).clamp(-1, 1)
    points = find_face(from_unit(picture)[0]).points
    (x0, y), (x1, _) = points[61, :2].tolist(), points[291, :2].tolist()
    wide = x1 - x0
    rows, columns = (y - 0.10 * wide, y + 0.30 * wide), (x0 + 0.1 * wide, x1 - 0.1 * wide)
    return picture, PortraitFace(picture, points), (slice(*map(int, rows)), slice(*map(int, columns)))


def mouth(name: str, **curves: float) -> Tensor:
    """Its mouth (3, h, w) in 0..1 as it is told; as the portrait shows it if nothing is."""
    picture, face, box = person(name)
    if curves:
        row = torch.zeros(1, len(MOTION))
        for curve, value in curves.items():
            row[:, MOTION.index(curve)] = value
        layer = face(row).pictures
        picture = torch.lerp(picture, layer[:, :3], layer[:, 3:])
    return (picture[0][:, box[0], box[1]] + 1) / 2


def white(picture: Tensor) -> Tensor:
    """Where it is as light as teeth and less red than lips."""
    red, green, blue = picture.clamp(min=0.02).log()
    return (1.5 * red - 2 * green + 0.5 * blue < 0.3) & (picture.mean(0) > 0.45)


def test_a_smile_keeps_its_own_teeth_when_the_mouth_opens() -> None:
    own = mouth(SMILING)
    teeth = white(own)
    assert int(teeth.sum()) > 100
    opened = mouth(SMILING, jaw=0.8, teeth=0.5)
    assert float((opened - own).abs().mean(0)[teeth].median()) < 0.10


def test_teeth_stay_on_the_skull_when_the_jaw_moves() -> None:
    less, more = (mouth(SMILING, jaw=jaw, teeth=0.7) for jaw in (0.45, 0.8))
    moved = (less - more).abs().mean(0)
    assert float(moved[white(mouth(SMILING))].mean()) < 0.10 < float(moved.quantile(0.9))


def test_teeth_turn_with_the_head_whatever_the_jaw_does() -> None:
    def place(**curves: float) -> float:
        teeth = white(mouth(SMILING, teeth=0.7, **curves)).float().sum(0)
        return float((teeth * torch.arange(len(teeth))).sum() / teeth.sum())

    ahead, turned, opened = place(jaw=0.5), place(jaw=0.5, yaw=0.4), place(jaw=0.8, yaw=0.4)
    assert 4 < turned - ahead < 9  # pixels; eight degrees
    assert abs(opened - turned) < 0.7


def test_lips_that_close_hide_the_teeth() -> None:
    shown = int(white(mouth(SMILING)).sum())
    assert int(white(mouth(SMILING, jaw=0.0)).sum()) < 0.3 * shown


@pytest.mark.parametrize("name", CLOSED)
def test_lips_that_are_closed_show_no_teeth_of_their_own(name: str) -> None:
    assert not person(name)[1].puppet.mouth.own
    assert person(SMILING)[1].puppet.mouth.own


def drawn_teeth(name: str) -> Tensor:
    """Colour (3,) of the lightest things that come out when the mouth opens."""
    shown = mouth(name, jaw=0.4, teeth=0.9, wide=0.6)
    changed = (shown - mouth(name)).abs().mean(0) > 0.08
    least = shown.amin(0) * changed
    return shown[:, least >= least.flatten().topk(20).values[-1]].mean(1)


@pytest.mark.parametrize("name", CLOSED)
def test_drawn_teeth_are_white_on_any_face(name: str) -> None:
    red, _, blue = drawn_teeth(name)
    assert 1 < float(red / blue) < 1.45


def test_drawn_teeth_shine_in_a_dark_picture() -> None:
    texture = person("jamal")[1].puppet.texture[0, :3]
    assert float(drawn_teeth("jamal").mean()) > 1.45 * float(texture.mean())


@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (1.0, 1.15, 1.4)])  # exponents: grey, and a print turned brown
def test_the_mouth_of_a_picture_without_colours_has_none(tint: tuple[float, ...]) -> None:
    portrait, coloured, box = person("eva")
    grey = ((portrait + 1) / 2).mean(1, keepdim=True) ** torch.tensor(tint).view(1, 3, 1, 1)
    face = PortraitFace(grey * 2 - 1, find_face(from_unit(portrait)[0]).points)
    row = torch.zeros(1, len(MOTION))
    row[:, MOTION.index("jaw")] = 0.8

    def redness(layer: Tensor) -> float:
        red, green, _ = ((layer[0, :3, box[0], box[1]] + 1) / 2).clamp(min=0.05).log()
        return float((red - green).mean())

    own = float((tint[0] - tint[1]) * grey[:, :1, box[0], box[1]].clamp(min=0.05).log().mean())
    assert abs(redness(face(row).pictures) - own) < 0.12
    assert redness(coloured(row).pictures) > 0.5


@pytest.mark.parametrize("name", ["eva", "kofi"])
def test_a_jaw_that_opens_draws_no_line_on_the_cheeks(name: str) -> None:
    puppet = person(name)[1].puppet
    light = puppet.shades[0, 2]  # of an open jaw
    wide = float(puppet.head.mouth_width) / EXTENT * light.shape[-1] / 2  # pixels
    assert 0.03 < float(-light.min()) and float(light.diff(dim=-1).abs().max()) * wide < 1.5


@pytest.mark.parametrize("name", ["eva", SMILING])
def test_no_field_folds_over_itself_at_full_rounding(name: str) -> None:
    row = torch.zeros(1, 1, len(MOTION))
    for curve, value in {"jaw": 0.6, "round": 1.0, "scale": 1.0}.items():
        row[..., MOTION.index(curve)] = value
    pose = Pose(person(name)[1].puppet, row)
    for field in (pose.upper, pose.lower):  # (1, 1, 2, G, G)
        step = 2 * EXTENT / field.shape[-1]
        across = (field[0, 0, :, 1:-1, 2:] - field[0, 0, :, 1:-1, :-2]) / (2 * step)
        down = (field[0, 0, :, 2:, 1:-1] - field[0, 0, :, :-2, 1:-1]) / (2 * step)
        area = (1 + across[0]) * (1 + down[1]) - across[1] * down[0]
        assert float(area.min()) > 0.05
