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


def save_rotated(picture: Picture, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8  # shown turned to the left by a quarter
    picture.transpose(Image.Transpose.ROTATE_270).save(path, exif=exif, quality=95)


def save_transparent(picture: Picture, path: Path) -> None:
    alpha = Image.new("L", picture.size, 0)
    ImageDraw.Draw(alpha).ellipse((0, 0, picture.width, picture.height), fill=255)
    picture.putalpha(alpha)
    picture.save(path)


FILES: dict[str, tuple[str, Callable[[Picture, Path], None]]] = {
    "exif rotation": ("a.jpg", save_rotated),
    "cmyk": ("a.jpg", lambda picture, path: picture.convert("CMYK").save(path, quality=95)),
    "transparent background": ("a.png", save_transparent),
    "grey": ("a.png", lambda picture, path: picture.convert("L").save(path)),
    "16 colours": ("a.gif", lambda picture, path: picture.quantize(16).save(path)),
    "96 px": ("a.png", lambda picture, path: picture.resize((96, 96)).save(path)),
    "12 megapixels": ("a.jpg", lambda picture, path: picture.resize((3464, 3464)).save(path)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_face_is_found_in_any_kind_of_file_where_it_is(kind: str, portrait: Picture, tmp_path: Path) -> None:
    name, save = FILES[kind]
    save(portrait.copy(), tmp_path / name)
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


def dog() -> Picture:
    image = Image.new("RGB", (400, 400), (140, 170, 120))
    draw = ImageDraw.Draw(image)
    draw.ellipse((90, 80, 310, 340), fill=(150, 100, 60))
    for x, side in ((100, -40), (300, 40)):
        draw.polygon([(x, 130), (x + side, 260), (x - side // 2, 240)], fill=(90, 60, 35))
    for x in (155, 245):
        draw.ellipse((x - 18, 160, x + 18, 196), fill=(30, 20, 10))
    draw.ellipse((140, 215, 260, 320), fill=(190, 150, 110))
    draw.ellipse((175, 215, 225, 255), fill=(20, 15, 15))
    return image


def childs_drawing() -> Picture:
    image = Image.new("RGB", (400, 500), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((100, 60, 300, 260), outline="black", width=5)
    for x in (160, 240):
        draw.ellipse((x - 8, 130, x + 8, 146), fill="black")
    draw.arc((150, 150, 250, 230), 20, 160, fill="red", width=6)
    draw.line((200, 260, 200, 420), fill="black", width=5)
    return image


def statue(picture: Picture) -> Picture:
    return picture.convert("L").point(lambda value: 90 + value // 2).convert("RGB")


OTHERS: dict[str, Callable[[Picture], Picture]] = {
    "64 px": lambda picture: picture.resize((64, 64)),
    "black and white": lambda picture: picture.convert("1"),
    "sunglasses": lambda picture: painted(picture, EYES[0] + EYES[1], "#141414", 0.15),
    "an arm before the eyes": lambda picture: painted(picture, EYES[0] + EYES[1], "#c08a70"),
    "from the side": lambda picture: picture.crop((picture.width // 2, 0, picture.width, picture.height)),
    "upside down": lambda picture: picture.rotate(180),
    "dog": lambda picture: dog(),
    "child's drawing": lambda picture: childs_drawing(),
    "statue": statue,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_pictures_run_or_are_refused_in_one_line_with_a_remedy(kind: str, portrait: Picture) -> None:
    image = tensor(OTHERS[kind](portrait))
    try:
        assert Scene.find(image, SIZE).portrait.shape == (*SIZE, 3)
    except FaceNotFoundError as refused:
        reason, _, remedy = str(refused).partition(";")
        assert reason and remedy.split()[0] in ("use", "rotate") and "\n" not in str(refused)
        assert portrait_notes(image) == [str(refused)]  # told, where it is animated as it is


def test_a_covered_mouth_and_a_picture_without_a_face_are_refused(portrait: Picture) -> None:
    with pytest.raises(FaceNotFoundError, match=r"mouth is covered .*; use a picture that shows it"):
        Scene.find(tensor(painted(portrait, LIPS, "#9fc4d8", 0.4)), SIZE)
    with pytest.raises(FaceNotFoundError, match="no face was found .*; use"):
        Scene.find(tensor(portrait.crop((0, 0, portrait.width, portrait.height // 4))), SIZE)


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
