"""The bundled networks that find faces, through `find_face`: what they find and refuse, and how steadily."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError, FaceNotFoundError
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.face_geometry import eye_distance
from letstalk_core.media.portrait.find import Face, FaceFinder, check_face, default_finder, find_face
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.face_landmarks import QUALITIES

from .conftest import PORTRAITS, moved


def on_canvas(image: Tensor, height: int, width: int, top: int, left: int) -> Tensor:
    """A picture on a larger one with a soft gradient."""
    down = torch.linspace(60, 180, height)[:, None, None]
    canvas = down.expand(height, width, 3).round().to(torch.uint8).clone()
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def error(found: Tensor, expected: Tensor) -> float:
    """Mean distance of points, as a part of the eye distance."""
    return float((found - expected)[:, :2].norm(dim=1).mean() / eye_distance(expected))


@pytest.mark.parametrize("path", PORTRAITS, ids=lambda path: path.stem)
def test_the_bundled_portraits_have_a_face_where_it_is_drawn(path: Path) -> None:
    image = load_portrait(path)
    face = find_face(image)
    check_face(face)
    x0, y0, x1, y1 = face.box
    assert face.drawn and face.points.shape == (478, 3)
    assert abs((x0 + x1) / 2 - 128) < 26 and 110 < y1 - y0 < 190 and abs(face.roll) < 15


@pytest.mark.parametrize("side", [64, 128, 512, 1500])
def test_points_scale_with_the_picture(portrait: Tensor, side: int) -> None:
    expected = find_face(portrait).points * (side / portrait.shape[0])
    assert error(find_face(resize(portrait, (side, side))).points, expected) < (0.12 if side < 100 else 0.05)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (37, 91), (200, 250)])
def test_points_move_with_the_face(portrait: Tensor, top: int, left: int) -> None:
    canvas = on_canvas(portrait, 480, 520, top, left)
    expected = find_face(portrait).points + torch.tensor([left, top, 0.0])
    assert error(find_face(canvas).points, expected) < 0.06


@pytest.mark.parametrize("degrees", [-25, 15, 30])
def test_a_leaning_head_is_read_with_its_roll(portrait: Tensor, degrees: int) -> None:
    straight, leaning = find_face(portrait), find_face(moved(portrait, roll=math.radians(degrees)))
    assert abs(leaning.roll - straight.roll - degrees) < 8


def test_a_face_of_a_twentieth_of_a_4000_pixel_picture_is_found(portrait: Tensor) -> None:
    large = on_canvas(resize(portrait, (440, 440)), 3000, 4000, 1200, 2500)
    x0, y0, x1, y1 = find_face(large).box
    assert 2500 < x0 and x1 < 2940 and 1200 < y0 and y1 < 1640


@pytest.mark.parametrize("change", ["grey", "dark", "cast", "noise"])
def test_bad_light_and_noise_do_not_hide_a_face(portrait: Tensor, change: str) -> None:
    x = portrait.float()
    changed = {
        "grey": x.mean(-1, keepdim=True).expand_as(x),
        "dark": x * 0.35,
        "cast": x * torch.tensor([1.0, 0.8, 0.6]),
        "noise": x + 20 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    }[change]
    face = find_face(changed.clamp(0, 255).round().to(torch.uint8))
    assert error(face.points, find_face(portrait).points) < 0.12


def textures() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(0, 256, (240, 320, 3), generator=generator, dtype=torch.uint8)
    soft = resize(torch.randint(0, 256, (9, 12, 3), generator=generator, dtype=torch.uint8), (240, 320))
    stripes = (torch.arange(320) // 13 % 2 * 200).to(torch.uint8).view(1, 320, 1).expand(240, 320, 3).contiguous()
    return {
        "blank": torch.full((200, 300, 3), 128, dtype=torch.uint8),
        "noise": noise,
        "soft": soft,
        "stripes": stripes,
    }


@pytest.mark.parametrize("name", list(textures()))
def test_pictures_without_a_face_say_so(name: str) -> None:
    with pytest.raises(FaceNotFoundError, match="no face"):
        find_face(textures()[name])


def a_face(**changes: object) -> Face:
    """A photograph's face that nothing speaks against, 160 pixels high."""
    points = torch.zeros(478, 3)
    points[:, :2] = torch.rand(478, 2, generator=torch.Generator().manual_seed(0)) * 160
    values: dict[str, object] = {
        "points": points,
        "confidence": 0.9,
        "yaw": 0.0,
        "pitch": 0.0,
        "roll": 0.0,
        "mouth_opening": 0.0,
        "eye_openings": (0.3, 0.3),
        "qualities": dict(zip(QUALITIES, (0.9, 0.0, 0.0, 0.0, 0.0), strict=True)),
    }
    return Face(**{**values, **changes})  # type: ignore[arg-type]


def qualities(**changes: float) -> dict[str, float]:
    return {**dict.fromkeys(QUALITIES, 0.0), "face": 0.9, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"yaw": -55.0}, ("turned away", "55 degrees", "into the camera")),
        ({"pitch": 50.0}, ("turned away", "up or down")),
        ({"roll": 175.0}, ("175 degrees", "rotate")),
        ({"points": a_face().points / 8}, ("too small", "pixels")),
        ({"qualities": qualities(eyes_hidden=0.9)}, ("eyes are covered", "sunglasses")),
        ({"qualities": qualities(mouth_hidden=0.9)}, ("mouth is covered", "hand")),
        ({"qualities": qualities(eyes_shut=0.9), "eye_openings": (0.05, 0.06)}, ("eyes are closed", "open eyes")),
    ],
)
def test_what_speaks_against_a_photograph_has_a_remedy(changes: dict[str, object], words: tuple[str, ...]) -> None:
    assert check_face(a_face()) == []
    (note,) = check_face(a_face(mouth_opening=0.4))
    assert "wide open" in note and "use a calm one" in note
    with pytest.raises(FaceNotFoundError) as refused:
        check_face(a_face(**changes))
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)
    if "qualities" not in changes:
        assert len(check_face(a_face(**changes, qualities=qualities(drawn=0.9)))) == 1  # drawn: told, not refused


def test_the_weights_say_where_a_quality_becomes_a_reason(tmp_path: Path, portrait: Tensor) -> None:
    networks = default_finder().networks
    strict = dataclasses.replace(networks.config, limits=(1e-9, 0.6, 0.6, 0.16))
    save_checkpoint(tmp_path / "strict.safetensors", {"faces": (strict, networks.state_dict())})
    notes = check_face(find_face(portrait, FaceFinder(tmp_path / "strict.safetensors")))
    assert any("eyes are covered" in note for note in notes) and check_face(find_face(portrait)) == []


def test_the_finder_is_a_detector_of_boxes(portrait: Tensor) -> None:
    boxes = default_finder()(portrait)
    assert boxes.shape == (1, 5) and boxes[0, :4].tolist() == pytest.approx(find_face(portrait).box)
    assert default_finder()(textures()["blank"]).shape == (0, 5)


def test_only_pictures_of_bytes_are_taken(portrait: Tensor) -> None:
    with pytest.raises(ConfigError, match="uint8"):
        FaceFinder()(portrait.float())
