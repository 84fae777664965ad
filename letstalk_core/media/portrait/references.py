"""More pictures of the person of a portrait, in its framing: the head at the same place, in the same size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import FaceNotFoundError
from .crop import resize
from .face_geometry import fit_head
from .find import Face, default_finder

FINEST = 2.0  # pixels of a reference for one of the portrait; more is scaled down


def align_references(pictures: Mapping[str, Tensor], portrait: Tensor) -> list[Tensor]:
    """Pictures (h, w, 3) uint8, by names for people, cut out so that they are framed as the portrait is.

    Heads are laid over each other by what neither speech nor lids move; they may lean and turn differently. Each
    result has the portrait's shape and the picture's own resolution; beyond its edges the picture goes on.
    Raises: FaceNotFoundError.
    """
    canonical = default_finder().networks.canonical
    home = fit_head(_face("the portrait", portrait).points, canonical)
    found = []
    for name, picture in pictures.items():
        place = fit_head(_face(name, picture).points, canonical)
        scale = float(place.scale / home.scale)
        if scale > FINEST:
            height, width = (max(8, round(side * FINEST / scale)) for side in picture.shape[:2])
            part = width / picture.shape[1]
            picture, scale = resize(picture, (height, width)), FINEST
        else:
            part = 1.0
        x, y = (part * place.shift - scale * home.shift)[:2].round().int().tolist()
        sides = tuple(max(8, round(side * scale)) for side in portrait.shape[:2])
        found.append(_cut(picture, x, y, (sides[0], sides[1])))
    return found


def _face(name: str, picture: Tensor) -> Face:
    faces = default_finder().faces(picture)
    if not faces:
        raise FaceNotFoundError(
            f"{name}: no face was found; references need one in themselves and in the portrait, turned by less"
            " than 35 degrees"
        )
    return faces[0]


def _cut(picture: Tensor, x: int, y: int, size: tuple[int, int]) -> Tensor:
    """size (height, width) of a picture from (x, y) on, whose edge pixels go on outside."""
    height, width = picture.shape[:2]
    rows = torch.arange(y, y + size[0]).clamp(0, height - 1)
    columns = torch.arange(x, x + size[1]).clamp(0, width - 1)
    return picture[rows][:, columns].contiguous()
