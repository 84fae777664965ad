"""Draw the bundled scene for the crop workflow: `python scripts/make_demo_scene.py`.

One of the bundled people in a room, 1280x720. The square REGION of the scene shows the person just as the bundled
portrait does; FACE is the face box whose default margins (LetsTalk Crop Portrait) give that square.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from make_demo_assets import DEMO, PEOPLE, PREVIEWS, STREAM
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from letstalk_research.data.synthetic.faces import render
from letstalk_research.data.synthetic.identity import Identity, sample_identity
from letstalk_research.data.synthetic.motion import MOTION

PERSON = "cleo"
WIDTH, HEIGHT = 1280, 720
SIDE = 572
REGION = (354, 148)  # x, y of the square; it ends at the lower edge of the scene
FACE = (510, 330, 260, 260)  # x, y, width, height
SMOOTH = 2  # furniture is drawn larger and reduced: soft edges
WHITE, BLACK = (0.9, 0.9, 0.9), (0.0, 0.0, 0.0)
WOOD, DARK_WOOD, SKY, LEAF = (146, 104, 68), (104, 72, 46), (198, 224, 240), (58, 116, 70)
BOOKS = ((176, 70, 62), (66, 104, 150), (214, 176, 92), (90, 140, 116), (120, 84, 130), (222, 214, 200))

Pixels = NDArray[np.float32]


def draw_person(person: Identity) -> tuple[Pixels, Pixels]:
    """Colours times coverage (SIDE, SIDE, 3), and coverage (SIDE, SIDE, 1), of a person without background.

    A drawing over white minus one over black shows what the person lets through.
    """
    motion = np.zeros((1, len(MOTION)), np.float32)
    motion[0, MOTION.index("scale")] = 1.0
    motion[0, MOTION.index("smile")] = 0.25
    away = motion.copy()
    away[0, MOTION.index("shift_x")] = 10.0  # out of the picture: nothing but background
    plain = dataclasses.replace(person, spot=False)

    def drawn(color: tuple[float, float, float], moves: Pixels) -> Pixels:
        identity = dataclasses.replace(plain, background_top=color, background_bottom=color)
        return render(identity, moves, size=SIDE)[0].numpy().astype(np.float32)

    over_black = drawn(BLACK, motion)
    through = (drawn(WHITE, motion) - over_black) / drawn(WHITE, away)
    return over_black, 1 - through.mean(2, keepdims=True).clip(0, 1)


def draw_room(person: Identity) -> Pixels:
    """The wall in the colours of the person's portrait; a window and a shelf beside the square of the person."""
    y = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None] ** 1.3
    top, bottom = (np.array(c, np.float32) * 255 for c in (person.background_top, person.background_bottom))
    wall = np.broadcast_to(top * (1 - y) + bottom * y, (HEIGHT, WIDTH, 3))
    large = Image.fromarray(wall.round().astype(np.uint8)).resize((WIDTH * SMOOTH, HEIGHT * SMOOTH))
    pen = ImageDraw.Draw(large)

    def box(
        x: float, y: float, width: float, height: float, color: tuple[int, int, int], radius: float = 0
    ) -> None:
        corners = [v * SMOOTH for v in (x, y, x + width, y + height)]
        pen.rounded_rectangle(corners, radius * SMOOTH, fill=color)

    box(52, 62, 262, 330, (236, 230, 220), 6)  # window
    box(66, 76, 234, 302, SKY)
    for x, y, width in ((90, 300, 120), (150, 280, 150), (66, 330, 234)):  # hills
        box(x, y, min(width, 300 - x), 378 - y, (150, 186, 140), 40 if y < 330 else 0)
    pen.ellipse([v * SMOOTH for v in (220, 100, 270, 150)], fill=(252, 240, 196))
    box(178, 76, 10, 302, (236, 230, 220))
    box(66, 220, 234, 10, (236, 230, 220))
    box(40, 388, 286, 16, (214, 206, 194), 4)
    for shelf in (236, 416):  # shelves with books
        box(974, shelf, 258, 14, WOOD, 3)
        box(974, shelf + 14, 258, 5, DARK_WOOD)
        x = 990
        for i, width in enumerate((24, 18, 30, 20, 26, 22, 28)):
            tall = 88 + (i * 37 + shelf) % 44
            box(x, shelf - tall, width, tall, BOOKS[(i * 5 + shelf // 7) % len(BOOKS)], 2)
            x += width + 2
    box(96, 590, 120, 130, (188, 112, 84), 12)  # a plant in a pot
    for x, y, width, height in ((120, 430, 44, 170), (70, 480, 60, 120), (160, 470, 66, 130), (140, 400, 30, 190)):
        pen.ellipse([v * SMOOTH for v in (x, y, x + width, y + height)], fill=LEAF)
    box(940, 640, 340, 80, WOOD, 0)  # the end of a table
    box(940, 632, 340, 12, DARK_WOOD, 4)
    box(1060, 566, 74, 68, (238, 232, 224), 10)  # a cup
    room = large.filter(ImageFilter.GaussianBlur(2.5)).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.asarray(room, np.float32)


def main() -> None:
    person = sample_identity(np.random.default_rng([STREAM, PEOPLE[PERSON]]))
    scene = draw_room(person).copy()
    figure, coverage = draw_person(person)
    x, y = REGION
    square = scene[y : y + SIDE, x : x + SIDE]
    square[:] = figure + (1 - coverage) * square
    target = DEMO / "scenes" / "studio.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(scene.round().clip(0, 255).astype(np.uint8))
    picture.save(target, optimize=True)
    picture.resize((480, 270)).save(PREVIEWS / "studio.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
