"""Points of the face mesh on drawn people, as `synthetic.faces` draws them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.networks.face_points import BROWS, CHIN, EYES, LIPS, NOSE_TIP, OVAL
from letstalk_core.networks.motion_channels import MOTION

from .synthetic.canvas import JAW_DROP
from .synthetic.faces import seen_at
from .synthetic.identity import Identity

RING = 20  # points of each of the four rings of the lips: corner, nine above, corner, nine below


def drawn_points(
    person: Identity, pose: NDArray[np.floating], size: int, mean: Tensor
) -> dict[int, tuple[float, float]]:
    """x, y in pixels of those points of one drawing (`size` pixels wide) that the drawing has.

    pose (15,) has the columns of `motion.MOTION`; `mean` (478, 3), a mean face in -1..1, tells how the points of
    the outline are spread around it.
    """
    m = dict(zip(MOTION, map(float, pose), strict=True))
    points: dict[int, tuple[float, float]] = {}
    _eyes(points, person, m, mean)
    _brows(points, person, m)
    points[NOSE_TIP] = (0.0, person.nose_y)
    points[98], points[327] = (-person.nose_width, person.nose_y + 0.03), (person.nose_width, person.nose_y + 0.03)
    _lips(points, person, m)
    _outline(points, person, m, mean)
    fu, fv = np.array(list(points.values())).T
    return {i: (float(x), float(y)) for i, (x, y) in zip(points, seen_at(person, m, fu, fv, size), strict=True)}


def _eyes(points: dict[int, tuple[float, float]], p: Identity, m: dict[str, float], mean: Tensor) -> None:
    t = np.linspace(0.75, -0.75, 7)  # outer to inner
    arc = 1 - t * t
    bottom = p.eye_height * 0.72 * arc
    lid = bottom * 0.75 + (-p.eye_height * arc**0.75 - bottom * 0.75) * (1 - m["blink"]) * (1 - 0.10 * m["smile"])
    for side, eye in zip((-1.0, 1.0), EYES, strict=True):
        across = np.concatenate([[1.0, -1.0], t, t]) * p.eye_width
        down = p.eye_y - p.eye_tilt * across + np.concatenate([[0.0, 0.0], lid, bottom])
        for i, a, y in zip(eye, across, down, strict=False):
            points[i] = (side * (p.eye_x + float(a)), float(y))
        x = side * p.eye_x + 0.045 * m["gaze_x"]
        y = p.eye_y + 0.025 * m["gaze_y"] - 0.004
        iris = mean[list(eye[-5:]), :2].numpy()
        spread = (iris - iris[0]) / np.linalg.norm(iris[1:] - iris[0], axis=1).mean() * p.iris_radius
        for i, (dx, dy) in zip(eye[-5:], spread, strict=True):
            points[i] = (float(x + dx), float(y + dy))


def _brows(points: dict[int, tuple[float, float]], p: Identity, m: dict[str, float]) -> None:
    t = np.tile(np.linspace(1.0, -1.0, 5), 2)
    thickness = p.brow_thickness * (1.05 - 0.40 * (t * 0.5 + 0.5)) * np.repeat([-1.0, 1.0], 5)
    y = p.brow_y - 0.045 * m["brow"] - p.brow_arch * (1 - (t - 0.15) ** 2) + 0.012 * t + thickness
    for side, brow in zip((-1.0, 1.0), BROWS, strict=True):
        for i, a, b in zip(brow, t, y, strict=True):
            points[i] = (side * float(p.eye_x + 0.005 + 0.135 * a), float(b))


def _lips(points: dict[int, tuple[float, float]], p: Identity, m: dict[str, float]) -> None:
    half = p.mouth_width * (1 + 0.20 * m["wide"] - 0.46 * m["round"] + 0.08 * m["smile"])
    t = np.linspace(-0.8, 0.8, 9)
    arc = 1 - t * t
    mixed = 0.25 + 0.6 * m["round"]
    bow = (1 - mixed) * arc + mixed * np.sqrt(arc)
    curve = 0.012 * m["smile"] * (1 - 4.5 * t * t)
    corner = 0.012 * m["smile"] * -3.5
    gate = min(1.0, m["jaw"] * 9)
    opening = 0.175 * m["jaw"] * (1 - 0.18 * m["round"])
    opening += gate * (0.028 * m["round"] + 0.030 * m["teeth"] + 0.012 * m["wide"])
    thick = (1 + 0.40 * m["round"] - 0.18 * m["wide"]) * np.sqrt(arc)
    inner = curve - 0.24 * opening * bow, curve + 0.76 * opening * bow
    cupid = 1 - 0.30 * np.exp(-4 * (t / 0.28) ** 2)
    outer = inner[0] - p.upper_lip * thick * cupid, inner[1] + p.lower_lip * thick
    middle = p.mouth_y + 0.010 * m["jaw"]
    for ring in range(4):
        part = ring / 3  # 0 at the outline, 1 at the opening
        above, below = (outer[k] + part * (inner[k] - outer[k]) for k in (0, 1))
        width = half * (1 - 0.04 * ring)
        xs = np.concatenate([[-width], t * half, [width], t[::-1] * half])
        ys = middle + np.concatenate([[corner], above, [corner], below[::-1]])
        for i, x, y in zip(LIPS[ring * RING : (ring + 1) * RING], xs, ys, strict=True):
            points[i] = (float(x), float(y))


def _outline(points: dict[int, tuple[float, float]], p: Identity, m: dict[str, float], mean: Tensor) -> None:
    """An ellipse from the hairline to the chin, tapering below, with the spread of a mean face's outline."""
    oval = mean[list(OVAL), :2].numpy().astype(np.float64)
    low, high = oval.min(0), oval.max(0)
    n = (oval - (low + high) / 2) / ((high - low) / 2)
    chin = p.face_height + JAW_DROP * m["jaw"]
    v = p.hairline + (chin - p.hairline) * (n[:, 1] + 1) / 2
    t = np.clip(v / p.face_height, -1, 1)
    taper = 1 - p.jaw_taper * np.clip((t - 0.10) / 1.05, 0, 1) ** 2
    reach = p.face_width * taper * np.sqrt(np.clip(1 - t * t, 0, 1))
    for i, side, x, y in zip(
        OVAL, np.sign(n[:, 0]), np.minimum(reach, np.abs(n[:, 0]) * p.face_width), v, strict=True
    ):
        points[i] = (float(side * x), float(y))
    points[CHIN] = (0.0, float(chin))
