"""Mix the bundled photo-like portraits: `python scripts/make_demo_portraits.py --portraits FOLDER`.

FOLDER holds stills with landmarks and a table, as `letstalk synthesize --portraits` reads them. Every person is
mixed from three held-out stills: hair, clothes and background of the first, the inner faces of the two others laid
into it one after the other, then the features moved. Nobody in the result exists, and no still is shown as it is.
In the scene such a person, cut out, stands in a room that is drawn here.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_demo_assets import DEMO, PEOPLE, PREVIEWS, STREAM
from make_demo_scene import draw_room
from PIL import Image, ImageFilter
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.puppet.fields import Head
from letstalk_core.media.puppet.geometry import EXTENT, blur
from letstalk_core.media.puppet.glasses import Glasses, draw_glasses
from letstalk_core.media.puppet.matting import head_matte
from letstalk_core.media.puppet.topology import EYES
from letstalk_core.networks.face_points import OVAL
from letstalk_research.data.photo.people import (
    SHAPE_NUMBERS,
    Framing,
    Portraits,
    combine,
    frame_stills,
    mirrored,
    reshape,
)
from letstalk_research.data.photo.stills import Still, face_height, load_stills
from letstalk_research.data.synthetic.identity import sample_identity

SIZE = 512  # pixels of a portrait
QUALITY = 92  # of the JPEG files
SHARPEN = 0.35  # of the detail that enlarging a still lost
WHITE = 0.8  # light on the frames of glasses
SIDE, PLACE = 690, (330, 112)  # of the person's square in the scene; x, y: its lower edge lies outside
WALL = (0.80, 0.78, 0.75), (0.60, 0.58, 0.57)  # upper and lower colour
FOCUS, GRAIN = 12, 0.008  # blur of the room in pixels, and its noise


@dataclass(frozen=True)
class Mix:
    """One person: the still of the head, two (still, amount) of faces, and a seed for the moved features."""

    host: str
    faces: tuple[tuple[str, float], ...]
    seed: int
    reshaped: float = 0.6  # of the usual spread
    mirrored: bool = False
    glasses: Glasses | None = None


ROUND = Glasses(
    width=0.40,
    height=0.34,
    squareness=2.8,
    rim=0.030,
    lower_rim=1.0,
    colour=(0.12, 0.09, 0.08),
    tint=0.04,
    glare=0.12,
)
PHOTOS = {
    "eva": Mix("fk2812", (("t20884", 0.75), ("t22028", 0.5)), 1),
    "finn": Mix("fk2985", (("fk2924", 0.7), ("t21601", 0.55)), 2, glasses=ROUND),
    "goro": Mix("fk2961", (("t21033", 0.6), ("fk2924", 0.5)), 3),
    "imani": Mix("fk2843", (("t21245", 0.3), ("fk2837", 0.55)), 15, reshaped=0.4),
    "jamal": Mix("t21572", (("t21353", 0.5), ("t20910", 0.4)), 6, reshaped=0.4, mirrored=True),
    "kofi": Mix("fk2932", (("t20672", 0.35), ("fk2995", 0.6)), 17, reshaped=0.4, mirrored=True),
}
SCENE = Mix("fk2871", (("t21697", 0.6), ("fk2828", 0.5)), 8, mirrored=True)


def whole(still: Still, side: int) -> Framing:
    """The framing that shows a square still as it is."""
    points = torch.from_numpy(still.points)
    oval = points[list(OVAL), :2]
    centre = (oval.amax(0) + oval.amin(0)) / side - 1
    across = points[EYES[1].corners[0]] - points[EYES[0].corners[0]]
    roll = math.degrees(math.atan2(float(across[1]), float(across[0])))
    return Framing(float(face_height(points)) / side, float(centre[0]), float(centre[1]), roll)


def mix(stills: dict[str, Still], person: Mix, texture: int) -> Portraits:
    """The person's picture over -EXTENT..EXTENT. Raises: ConfigError for a still that is not there."""
    names = (person.host, *(name for name, _ in person.faces))
    missing = [name for name in names if name not in stills]
    if missing:
        raise ConfigError(
            f"--portraits: has no held-out still {', '.join(missing)}; use the stills of the model card"
        )
    host = stills[person.host]
    framing = whole(host, host.size or max(Image.open(host.path).size))
    found = frame_stills([host], [framing], texture=texture)
    for name, amount in person.faces:
        donor = frame_stills([stills[name]], [framing], texture=texture)
        if host.yaw * stills[name].yaw < 0:
            donor = mirrored(donor)
        found = combine(found, donor, torch.tensor([amount]), torch.tensor([0.8]))
    numbers = torch.from_numpy(np.random.default_rng(person.seed).normal(size=(1, SHAPE_NUMBERS))).float()
    found = reshape(found, person.reshaped * numbers)
    found = mirrored(found) if person.mirrored else found
    if person.glasses is not None:
        worn = draw_glasses(Head(found.points), [person.glasses], texture, torch.full((1, 3), WHITE))
        found.texture = torch.lerp(found.texture, worn[:, :3], worn[:, 3:])
    detail = found.texture - blur(found.texture, 1.2)
    return Portraits((found.texture + SHARPEN * detail).clamp(0, 1), found.points)


def middle(texture: Tensor, size: int) -> Tensor:
    """The frame (c, size, size) inside of a texture (1, c, T, T)."""
    edge = round(texture.shape[-1] * (1 - 1 / EXTENT) / 2)
    inside = texture[..., edge : texture.shape[-1] - edge, edge : texture.shape[-1] - edge]
    return F.interpolate(inside, size=(size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)


def scene(person: Portraits) -> Image.Image:
    """The person, cut out, before a room that is out of focus."""
    drawn = sample_identity(np.random.default_rng([STREAM, PEOPLE["dev"]]))
    room = draw_room(dataclasses.replace(drawn, background_top=WALL[0], background_bottom=WALL[1]))
    blurred = Image.fromarray(room.round().clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(FOCUS))
    behind = torch.from_numpy(np.array(blurred)).permute(2, 0, 1).float() / 255
    behind = behind + GRAIN * torch.randn(behind.shape, generator=torch.Generator().manual_seed(0))
    cover, _ = head_matte(person.texture, Head(person.points))
    figure = middle(torch.cat([person.texture, cover], 1), SIDE)
    x, y = PLACE
    square = behind[:, y:, x : x + SIDE]
    figure = figure[:, : square.shape[1]]
    square.copy_(torch.lerp(square, figure[:3], figure[3:]))
    return picture(behind.clamp(0, 1))


def picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--portraits", required=True, help="folder of stills with landmarks.npz and portraits.csv")
    parser.add_argument("--out", default=str(DEMO), help="folder that gets portraits/ and scenes/")
    parser.add_argument("--only", default="", help="names of people, comma-separated; all by default")
    args = parser.parse_args()
    stills = {still.id: still for still in load_stills(args.portraits, held_out=True)}
    out = Path(args.out)
    for folder in ("portraits", "scenes"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    chosen = args.only.split(",") if args.only else [*PHOTOS, "interview"]
    for name in chosen:
        folder, person = ("portraits", PHOTOS[name]) if name in PHOTOS else ("scenes", SCENE)
        side = SIZE if folder == "portraits" else SIDE
        found = mix(stills, person, round(side * EXTENT))
        made = picture(middle(found.texture, SIZE)) if folder == "portraits" else scene(found)
        made.save(out / folder / f"{name}.jpg", quality=QUALITY, optimize=True)
        if out == DEMO:
            made.resize((256, 256 * made.height // made.width), Image.Resampling.LANCZOS).save(
                PREVIEWS / f"{name}.jpg", quality=82, optimize=True
            )


if __name__ == "__main__":
    main()
