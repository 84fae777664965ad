"""Who is drawn: the parameters of a drawn person, and how they are chosen.

Lengths are in units of half the picture (the picture spans -1..1), colours are linear mixes in 0..1 sRGB values.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]

HAIR_STYLES = ("short", "side", "bob", "long", "bun", "afro")
SKIN_TONES: tuple[Color, ...] = (
    (0.98, 0.85, 0.76), (0.96, 0.79, 0.67), (0.91, 0.71, 0.57), (0.84, 0.62, 0.47), (0.74, 0.53, 0.39),
    (0.62, 0.43, 0.31), (0.52, 0.35, 0.25), (0.43, 0.29, 0.21),
)  # fmt: skip
HAIR_COLORS: tuple[Color, ...] = (
    (0.11, 0.09, 0.09), (0.23, 0.15, 0.11), (0.38, 0.23, 0.14), (0.56, 0.36, 0.19), (0.86, 0.69, 0.40),
    (0.66, 0.27, 0.13), (0.72, 0.72, 0.74), (0.20, 0.22, 0.38), (0.50, 0.18, 0.27),
)  # fmt: skip
IRIS_COLORS: tuple[Color, ...] = (
    (0.32, 0.19, 0.10), (0.46, 0.30, 0.14), (0.24, 0.47, 0.72), (0.27, 0.53, 0.36), (0.40, 0.48, 0.54),
)  # fmt: skip
LIPSTICKS: tuple[Color, ...] = ((0.80, 0.20, 0.27), (0.76, 0.30, 0.36), (0.84, 0.38, 0.42), (0.66, 0.16, 0.25))
FRAME_COLORS: tuple[Color, ...] = ((0.09, 0.09, 0.11), (0.38, 0.20, 0.12), (0.16, 0.20, 0.42), (0.55, 0.12, 0.16))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One drawn person: 30 numbers, colours and switches; everything that does not change while they talk."""

    hair_style: str
    skin_group: int  # index into SKIN_TONES, 0 lightest
    skin: Color
    hair: Color
    iris: Color
    lips: Color
    shirt: Color
    collar: Color
    background_top: Color
    background_bottom: Color
    frame: Color  # of the glasses
    glasses: bool
    round_glasses: bool
    beard: bool
    lashes: bool
    v_neck: bool
    spot: bool  # a soft light disc in the background
    face_width: float
    face_height: float
    jaw_taper: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris_radius: float
    brow_y: float
    brow_thickness: float
    brow_arch: float
    nose_width: float
    nose_y: float
    mouth_width: float
    mouth_y: float
    upper_lip: float
    lower_lip: float
    hairline: float
    hair_volume: float
    part: float  # side of the parting, -1 or 1
    light: float  # -1 from the left, 1 from the right
    center_x: float
    center_y: float
    zoom: float
    gradient: float
    spot_x: float
    spot_y: float


def _hsv(h: float, s: float, v: float) -> Color:
    return colorsys.hsv_to_rgb(h % 1.0, s, v)


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw a person at random; the same generator state gives the same person."""

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def pick(colors: tuple[Color, ...]) -> Color:
        return colors[int(rng.integers(len(colors)))]

    def vary(color: Color, amount: float) -> Color:
        r, g, b = (min(1.0, max(0.0, c * (1 + u(-amount, amount)))) for c in color)
        return (r, g, b)

    def mix(a: Color, b: Color, t: float) -> Color:
        r, g, bl = (x * (1 - t) + y * t for x, y in zip(a, b, strict=True))
        return (r, g, bl)

    group = int(rng.integers(len(SKIN_TONES)))
    skin = vary(SKIN_TONES[group], 0.03)
    dark = group >= 4
    style = HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))]
    feminine = bool(rng.random() < {"short": 0.2, "side": 0.3, "afro": 0.5}.get(style, 0.95))
    # dark skin with near-black hair would hide the hairline: the darkest hair is lifted a little there
    hair = vary(HAIR_COLORS[int(rng.integers(4))] if dark and rng.random() < 0.7 else pick(HAIR_COLORS), 0.12)
    if dark and max(hair) < 0.16:
        hair = (0.13, 0.11, 0.12)
    if feminine and rng.random() < 0.7:
        lips = vary(pick(LIPSTICKS), 0.05)
    else:
        lips = mix(skin, (0.66, 0.24, 0.27), 0.55 if not dark else 0.62)
    hue = u(0, 1)
    return Identity(
        hair_style=style,
        skin_group=group,
        skin=skin,
        hair=hair,
        iris=vary(pick(IRIS_COLORS), 0.1),
        lips=lips,
        shirt=_hsv(u(0, 1), u(0.25, 0.7), u(0.35, 0.85)),
        collar=_hsv(u(0, 1), u(0.05, 0.3), u(0.8, 0.97)),
        background_top=_hsv(hue, u(0.12, 0.4), u(0.65, 0.92)),
        background_bottom=_hsv(hue + u(-0.1, 0.1), u(0.2, 0.5), u(0.35, 0.65)),
        frame=pick(FRAME_COLORS),
        glasses=bool(rng.random() < 0.25),
        round_glasses=bool(rng.random() < 0.5),
        beard=bool(not feminine and rng.random() < 0.4),
        lashes=feminine,
        v_neck=bool(rng.random() < 0.4),
        spot=bool(rng.random() < 0.5),
        face_width=u(0.47, 0.53) - (0.015 if feminine else 0.0),
        face_height=u(0.62, 0.67),
        jaw_taper=u(0.26, 0.38) if feminine else u(0.18, 0.30),
        eye_x=u(0.205, 0.228),
        eye_y=u(-0.07, -0.03),
        eye_width=u(0.120, 0.136),
        eye_height=u(0.074, 0.090) * (1.06 if feminine else 1.0),
        eye_tilt=u(-0.05, 0.14),
        iris_radius=u(0.060, 0.068),
        brow_y=u(-0.235, -0.21),
        brow_thickness=u(0.020, 0.027) if feminine else u(0.027, 0.038),
        brow_arch=u(0.015, 0.045),
        nose_width=u(0.065, 0.09),
        nose_y=u(0.13, 0.165),
        mouth_width=u(0.185, 0.215),
        mouth_y=u(0.325, 0.35),
        upper_lip=u(0.030, 0.042),
        lower_lip=u(0.040, 0.056),
        hairline=u(-0.44, -0.38),
        hair_volume=u(0.05, 0.10),
        part=float(rng.choice([-1.0, 1.0])),
        light=float(rng.choice([-1.0, 1.0])) * u(0.5, 1.0),
        center_x=u(-0.02, 0.02),
        center_y=u(-0.01, 0.03),
        zoom=u(1.02, 1.08),
        gradient=u(-0.5, 0.5),
        spot_x=u(-0.9, 0.9),
        spot_y=u(-0.9, 0.1),
    )
