"""Pictures as people have them: each is animated, or refused in one line with the reason and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from letstalk_core.errors import FaceNotFoundError
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.face_geometry import eye_distance
from letstalk_core.media.portrait.find import find_face, portrait_notes
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.scene import Scene
from letstalk_core.networks.face_points import EYES, LIPS
from letstalk_core.networks.load import DEMO_FOLDER

SIZE = (256, 256)
Picture = Image.Image


@pytest.fixture(scope="module")
def portrait() -> Picture:
    with Image.open(DEMO_FOLDER / "portraits" / "eva.jpg") as file:
        return file.convert("RGB")


def tensor(picture: Picture) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB")))


def cut_out(picture: Picture) -> Picture:
    """With nothing around an ellipse."""
    alpha = Image.new("L", picture.size, 0)
    ImageDraw.Draw(alpha).ellipse((0, 0, picture.width, picture.height), fill=255)
    return Image.merge("RGBA", [*picture.split(), alpha])


FILES: dict[str, tuple[str, Callable[[Picture], Picture]]] = {
    "cmyk": ("a.jpg", lambda picture: picture.convert("CMYK")),
    "transparent background": ("a.png", cut_out),
    "16 colours": ("a.gif", lambda picture: picture.quantize(16)),
    "12 megapixels": ("a.jpg", lambda picture: picture.resize((3464, 3464), Image.Resampling.NEAREST)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_face_is_found_in_any_kind_of_file_where_it_is(kind: str, portrait: Picture, tmp_path: Path) -> None:
    name, change = FILES[kind]
    change(portrait).save(tmp_path / name)
    image = load_portrait(tmp_path / name)
    scene, expected = Scene.find(image, SIZE), find_face(tensor(portrait)).points
    assert scene.portrait.shape == (*SIZE, 3)
    points = find_face(image).points * (portrait.height / image.shape[0])
    assert float((points - expected)[:, :2].norm(dim=1).mean() / eye_distance(expected)) < 0.15


def painted(picture: Picture, group: tuple[int, ...], colour: str, room: float = 0.6) -> Picture:
    """Something before some points of the face, larger than they are."""
    points = find_face(tensor(picture)).points[list(group), :2]
    low, high = points.amin(0), points.amax(0)
    around = room * float((high - low).max())
    result = picture.copy()
    box = [*(low - around).tolist(), *(high + around).tolist()]
    ImageDraw.Draw(result).rounded_rectangle(box, around / 2, fill=colour)
    return result


def childs_drawing() -> Picture:
    image = Image.new("RGB", (400, 500), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((100, 60, 300, 260), outline="black", width=5)
    for x in (160, 240):
        draw.ellipse((x - 8, 130, x + 8, 146), fill="black")
    draw.arc((150, 150, 250, 230), 20, 160, fill="red", width=6)
    draw.line((200, 260, 200, 420), fill="black", width=5)
    return image


def cut(picture: Picture, left: float = 0.0, lower: float = 1.0) -> Picture:
    """The part right of and above these parts of the sides."""
    return picture.crop((round(left * picture.width), 0, picture.width, round(lower * picture.height)))


def statue(picture: Picture) -> Picture:
    return picture.convert("L").point(lambda value: 90 + value // 2).convert("RGB")


OTHERS: dict[str, tuple[Callable[[Picture], Picture], str]] = {
    "black and white": (lambda picture: picture.convert("1"), ""),
    "child's drawing": (lambda picture: childs_drawing(), "no face was found.*; use"),
    "statue": (statue, ""),
    "64 px": (lambda picture: picture.resize((64, 64)), "too small.*; use a larger picture"),
    "sunglasses": (
        lambda picture: painted(picture, EYES[0] + EYES[1], "#141414", 0.15),
        "(no face|eyes are covered).*; use",
    ),
    "an arm before the eyes": (lambda picture: painted(picture, EYES[0] + EYES[1], "#c08a70"), "no face.*; use"),
    "a covered mouth": (
        lambda picture: painted(picture, LIPS, "#9fc4d8", 0.4),
        "mouth is covered.*; use .* shows",
    ),
    "from the side": (lambda picture: cut(picture, left=0.5), "turned away.*; use .* looks into the camera"),
    "hair alone": (lambda picture: cut(picture, lower=0.25), "no face was found.*; use"),
    "upside down": (lambda picture: picture.rotate(180), "no face.*; use"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_pictures_run_or_are_refused_in_one_line_with_a_remedy(kind: str, portrait: Picture) -> None:
    change, message = OTHERS[kind]
    image = tensor(change(portrait))
    if not message:
        assert Scene.find(image, SIZE).portrait.shape == (*SIZE, 3)
        return
    with pytest.raises(FaceNotFoundError, match=message) as refused:
        Scene.find(image, SIZE)
    assert "\n" not in str(refused.value)
    assert portrait_notes(image) == [str(refused.value)]  # told, where it is animated as it is


def test_of_two_faces_the_user_is_told(portrait: Picture) -> None:
    pair = Image.new("RGB", (2 * portrait.width, portrait.height))
    for x in (0, portrait.width):
        pair.paste(portrait, (x, 0))
    assert Scene.find(tensor(pair), SIZE).notes == ["2 faces were found; takes the largest"]


def test_a_picture_that_is_animated_as_it_is_should_be_filled_by_the_face(portrait: Picture) -> None:
    assert portrait_notes(tensor(portrait)) == []
    wide = torch.full((1200, 1200, 3), 90, dtype=torch.uint8)
    wide[400:720, 300:620] = resize(tensor(portrait), (320, 320))
    (note,) = portrait_notes(wide)
    assert "of the picture's height; crop closer" in note
