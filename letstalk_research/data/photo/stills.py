"""A folder of still portraits with the landmarks of their faces.

A folder has pictures and, beside them or elsewhere, a landmark file: an .npz of `ids` (n,), `points` (n, 478, 3)
in pixels of the picture and, if the pictures may have been resized since, `sizes` (n,) of their sides. A table
`portraits.csv` may say more of each: `image` (path), `split` (train or heldout), `group` (look-alikes), `sex`,
`skin` (1 to 6), `beard`, `glasses`, `mouth` (closed, slightly open, teeth). Pictures that the table marks as held
out are for measuring: they never take part in training, neither as host nor as donor.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.media.puppet.topology import EYES, MOUTH, TOP
from letstalk_core.networks.face_points import CHIN, LOWER_INNER, POINTS, UPPER_INNER

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LARGEST_SIDE = 768  # px; larger pictures are reduced when read
LARGEST_TURN = 18.0  # degrees of yaw: beyond it the far cheek is a few pixels wide
OPEN_LIPS, BROAD = 0.035, 0.16  # height of the gap between the lips in mouth widths
NARROW_EYES = 0.165  # height of the opening in widths of the eye


@dataclass(frozen=True)
class Still:
    """One portrait: where it is, its points (478, 3) in its own pixels, and what the table says."""

    id: str
    path: Path
    points: NDArray[np.float32]
    size: int = 0  # side of the picture the points were found in; 0 if as it is
    held_out: bool = False
    group: str = ""
    sex: str = ""
    skin: int = 0
    beard: bool = False
    glasses: bool = False
    teeth: bool = False

    @cached_property
    def lip_gap(self) -> float:
        """Height of the opening between the lips in mouth widths."""
        p = self.points
        heights = p[list(LOWER_INNER), 1] - p[list(UPPER_INNER), 1]
        return float(heights.max() / max(np.linalg.norm(p[MOUTH[0]] - p[MOUTH[1]]), 1e-6))

    @cached_property
    def yaw(self) -> float:
        """Degrees the head is turned; positive with the nose to the right of the picture."""
        across = self.points[EYES[1].corners[0]] - self.points[EYES[0].corners[0]]
        return float(np.degrees(np.arctan2(across[2], across[0])))

    @cached_property
    def eye_opening(self) -> float:
        """Height of the narrower eye in its own width."""
        p = self.points
        heights = [float(np.linalg.norm(p[e.upper[3]] - p[e.lower[3]])) for e in EYES]
        widths = [float(np.linalg.norm(p[e.corners[0]] - p[e.corners[1]])) for e in EYES]
        return min(h / max(w, 1e-6) for h, w in zip(heights, widths, strict=True))

    @property
    def usable(self) -> bool:
        """Whether the face can be animated: hardly turned, eyes open, lips not far apart."""
        return abs(self.yaw) <= LARGEST_TURN and self.eye_opening >= NARROW_EYES and self.lip_gap <= BROAD


def load_stills(
    folder: str | os.PathLike[str], landmarks: str | os.PathLike[str] | None = None, *, held_out: bool = False
) -> list[Still]:
    """The usable pictures of a folder: those for training, or those held out.

    `landmarks`: the .npz file; `folder/landmarks.npz` if None. Raises: MediaError for a folder or file that cannot
    be used, or in which no picture of this kind has a usable face.
    """
    folder = Path(folder)
    path = Path(landmarks) if landmarks is not None else folder / "landmarks.npz"
    if not folder.is_dir():
        raise MediaError(f"{folder}: no such folder; --portraits needs a folder of pictures")
    try:
        with np.load(path, allow_pickle=False) as data:
            ids, points = [str(i) for i in data["ids"]], np.asarray(data["points"], np.float32)
            sizes = np.asarray(data["sizes"], np.int64) if "sizes" in data else np.zeros(len(ids), np.int64)
    except (OSError, KeyError, ValueError) as error:
        raise MediaError(f"{path}: no file of landmarks ({error}); give one with --landmarks") from None
    if points.shape != (len(ids), POINTS, 3) or sizes.shape != (len(ids),):
        raise MediaError(f"{path}: points have shape {points.shape}, need ({len(ids)}, {POINTS}, 3)")
    table = _read_table(folder / "portraits.csv")
    pictures = {p.stem: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES}
    stills = []
    for name, face, size in zip(ids, points, sizes, strict=True):
        row = table.get(name, {})
        picture = pictures.get(name)
        if picture is None or not np.isfinite(face).all():
            continue
        still = Still(
            name,
            picture,
            face,
            int(size),
            held_out=row.get("split") == "heldout",
            group=row.get("group", name),
            sex=row.get("sex", ""),
            skin=int(row["skin"]) if row.get("skin", "").isdigit() else 0,
            beard=row.get("beard") == "1",
            glasses=row.get("glasses") == "1",
            teeth=row.get("mouth") == "teeth",
        )
        if still.held_out == held_out and still.usable:
            stills.append(still)
    if not stills:
        kind = "held out " if held_out else ""
        raise MediaError(f"{folder}: no {kind}picture has a usable face in {path}; add portraits")
    return stills


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(file)]
    return {row["id"]: row for row in rows if row.get("id")}


def read_picture(still: Still) -> tuple[Tensor, Tensor]:
    """The picture (3, h, w) in 0..1 and its points (478, 3) in pixels. Raises: MediaError."""
    try:
        with Image.open(still.path) as file:
            upright = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError) as error:
        raise MediaError(f"{still.path}: cannot be read ({error}); remove it") from None
    own = max(upright.size)
    if own > LARGEST_SIDE:
        scale = LARGEST_SIDE / own
        upright = upright.resize(
            (round(upright.width * scale), round(upright.height * scale)), Image.Resampling.LANCZOS
        )
    found_in = still.size or own
    pixels = torch.from_numpy(np.array(upright)).permute(2, 0, 1).float() / 255
    return pixels, torch.from_numpy(still.points) * (max(upright.size) / found_in)


def face_height(points: Tensor) -> Tensor:
    """Hairline to chin in the unit of the points (..., 478, 3), whatever the pitch."""
    return (points[..., CHIN, :] - points[..., TOP, :]).norm(dim=-1)
