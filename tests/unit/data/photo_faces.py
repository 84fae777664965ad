"""Drawn stills with made-up landmarks for the tests of photo puppets: nobody's face, a known geometry."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from letstalk_core.media.puppet import topology as mesh
from letstalk_core.networks import face_points as numbers

SIDE = 192
CENTRE, HALF = np.array([96.0, 98.0]), np.array([38.0, 48.0])  # of the face, px
EYE_Y, EYE_X, EYE_HALF = -0.22, 0.42, np.array([0.20, 0.075])
MOUTH_Y, MOUTH_HALF, LIP = 0.50, 0.36, 0.10


def face_points(gap: float = 0.0) -> np.ndarray:
    """(478, 3) in px. gap: height of the opening between the lips, in halves of the face."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 478), 0.9 * np.sqrt(rng.uniform(0.02, 1, 478))
    p = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    busy = (np.abs(p[:, 1] - EYE_Y) < 0.35) | ((np.abs(p[:, 1] - MOUTH_Y) < 0.3) & (np.abs(p[:, 0]) < 0.6))
    p[busy] = p[busy] * [1, 0.02] + [0, 0.12]  # points that no group places: out of the way of eyes and mouth
    turn = np.linspace(-np.pi / 2, 1.5 * np.pi, len(numbers.OVAL), endpoint=False)
    p[list(numbers.OVAL)] = np.stack([np.cos(turn), np.sin(turn)], 1)
    for side, eye in zip((-1, 1), mesh.EYES, strict=True):
        x = np.linspace(1, -1, 9) * EYE_HALF[0]  # outer to inner corner
        across, arc = side * (EYE_X + x), (1 - (x / EYE_HALF[0]) ** 2)[1:-1] * EYE_HALF[1]
        p[list(eye.corners)] = [[across[0], EYE_Y], [across[-1], EYE_Y]]
        rows = (
            (eye.upper, -1.0, 0.0),
            (eye.lower, 1.0, 0.0),
            (eye.crease, -1.0, -0.08),
            (eye.under_brow, -1.0, -0.2),
        )
        for ids, sign, shift in (*rows, (eye.under, 1.0, 0.08)):
            p[list(ids)] = np.stack([across[1:-1], EYE_Y + sign * arc + shift], 1)
        ring = np.array([[0, 0], [0.06, 0], [0, -0.05], [-0.06, 0], [0, 0.05]])
        p[list(eye.iris)] = ring + [side * EYE_X, EYE_Y]
        p[list(mesh.NASOLABIAL[(side + 1) // 2])] = [
            [side * w, h] for w, h in zip((0.16, 0.26, 0.36, 0.44, 0.48), np.linspace(0.18, 0.62, 5), strict=True)
        ]
    brow = np.linspace(0.62, 0.2, 5)
    for start, side in ((0, -1), (10, 1)):
        for row, y in ((0, -0.50), (5, -0.45)):
            p[list(mesh.BROWS[start + row : start + row + 5])] = np.stack([side * brow, np.full(5, y)], 1)
    x = np.linspace(-1, 1, 11)[1:-1] * MOUTH_HALF
    arc = 1 - (x / MOUTH_HALF) ** 2
    for lip, sign in ((mesh.UPPER_LIP, -1), (mesh.LOWER_LIP, 1)):
        for r, ring in enumerate(lip):
            p[list(ring)] = np.stack([x, MOUTH_Y + sign * arc * (gap / 2 + LIP * (1 - r / 3))], 1)
    for k, i in enumerate(mesh.CORNERS):
        p[i] = [(-1 if k < 4 else 1) * MOUTH_HALF, MOUTH_Y]
    p[numbers.NOSE_TIP] = [0, 0.12]
    z = -0.9 * np.sqrt(np.clip(1 - p[:, 0] ** 2, 0, None)) * HALF[0]  # a cylinder: the chin is before the ears
    return np.concatenate([p * HALF + CENTRE, z[:, None]], 1).astype(np.float32)


def face_picture(skin: tuple[float, float, float], back: tuple[float, float, float]) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: skin with a light gradient, hair, white eyes, red lips with a dark seam."""
    at = (torch.arange(SIDE) + 0.5).double().numpy()
    x, y = (at[None] - CENTRE[0]) / HALF[0], (at[:, None] - CENTRE[1]) / HALF[1]
    picture = np.ones((SIDE, SIDE, 3)) * back

    def paint(where: np.ndarray, colour: tuple[float, float, float] | np.ndarray) -> None:
        picture[where] = np.broadcast_to(colour, picture.shape)[where]

    paint((x / 2.1) ** 2 + ((y - 2.3) / 1.1) ** 2 < 1, (0.2, 0.3, 0.5))
    paint((np.abs(x) < 0.5) & (y > 0) & (y < 1.6), skin)
    paint((x / 1.12) ** 2 + ((y + 0.25) / 1.2) ** 2 < 1, (0.15, 0.1, 0.08))
    paint(x**2 + y**2 < 1, np.array(skin) * (1 + 0.12 * x[..., None] + 0.1 * np.sin(6 * y)[..., None]))
    for side in (-1, 1):
        u, v = x - side * EYE_X, y - EYE_Y
        paint((u / EYE_HALF[0]) ** 2 + (v / EYE_HALF[1]) ** 2 < 1, (0.9, 0.9, 0.88))
        paint((u / 0.07) ** 2 + (v / 0.06) ** 2 < 1, (0.1, 0.2, 0.3))
    v = (y - MOUTH_Y) / np.clip(LIP * (1 - (x / MOUTH_HALF) ** 2), 1e-3, None)
    lips = (np.abs(v) < 1) & (np.abs(x) < MOUTH_HALF)
    paint(lips, (0.65, 0.3, 0.3))
    paint(lips & (np.abs(y - MOUTH_Y) < 0.012), (0.3, 0.12, 0.12))
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def write_stills(folder: Path, *, held_out: int = 1, train: int = 3) -> Path:
    """A folder of stills as `load_stills` reads it: landmarks.npz, portraits.csv and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    ids = [*(f"train{i}" for i in range(train)), *(f"held{i}" for i in range(held_out))]
    for name in ids:
        skin, back = rng.uniform(0.45, 0.75, 3), rng.uniform(0.0, 1.0, 3)
        Image.fromarray(face_picture(tuple(skin), tuple(back))).save(folder / f"{name}.png")
    points = np.stack([face_points() for _ in ids])
    np.savez(folder / "landmarks.npz", ids=np.array(ids), sizes=np.full(len(ids), SIDE), points=points)
    with (folder / "portraits.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "split", "sex", "skin", "beard", "glasses"])
        table.writerows([name, "heldout" if name.startswith("held") else "train", "", 3, 0, 0] for name in ids)
    return folder
