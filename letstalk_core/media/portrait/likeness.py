"""How much of a portrait is left in what the autoencoder makes of it: in its pixels, and in its eyes and lips.

A video can be no more like its portrait than this. An autoencoder that never saw photographs leaves the colours of
one and smears eyes, nose and mouth, which no score of latents against latents notices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...networks.face_landmarks import LOOKS
from .crop import check_image
from .face_geometry import eye_distance
from .find import Face, default_finder

# Detail is what lies between these two widths, in parts of the picture's height (3 and 17 pixels of 256): finer is
# texture that is hard to see, coarser is tone, which every autoencoder keeps.
FINE, COARSE = 3 / 256, 17 / 256
LOST, NONE_LOST = 0.75, 0.15  # error of the detail, relative to it, that scores 0 and 1
SHIFT = 0.4  # of eyes or lips, in eye distances, that scores 0
FAR = 0.28  # score below which a user should know; an autoencoder of drawings leaves photographs 0.05 to 0.26


class Likeness(NamedTuple):
    """Each in 0..1, 1 for the same picture."""

    detail: float
    points: float  # 0 if there is no face any more; 1 if there was none

    @property
    def score(self) -> float:
        return self.detail * self.points


def compare_portrait(portrait: Tensor, decoded: Tensor) -> Likeness:
    """Likeness of what an autoencoder made of a portrait, both (h, w, 3) uint8; inside the face if there is one.

    Raises: ConfigError.
    """
    check_image(portrait)
    check_image(decoded)
    finder = default_finder()
    before = next(iter(finder.faces(portrait)), None)
    after = next(iter(finder.faces(decoded)), None) if before is not None else None
    wanted, found = _detail(portrait), _detail(decoded)
    if before is not None:
        x0, y0, x1, y1 = (max(0, round(v)) for v in before.box)
        part = (..., slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1)))
        wanted, found = wanted[part], found[part]
    lost = float(((found - wanted).square().sum() / wanted.square().sum().clamp_min(1e-6)).sqrt())
    detail = min(1.0, max(0.0, (LOST - lost) / (LOST - NONE_LOST)))
    return Likeness(detail, 1.0 if before is None else _points_kept(before, after))


def far_from_portrait(score: float) -> str | None:
    """What the user should know of a `Likeness.score`, in one line; None if it is good enough."""
    if score >= FAR:
        return None
    return (
        f"the autoencoder keeps too little of this picture (likeness {score:.2f} of 1), so that the face will look"
        " smeared; use a model that was trained on such pictures, or a sharp, evenly lit one with a large face"
    )


def _points_kept(before: Face, after: Face | None) -> float:
    """1 where eyes and lips are in their place, 0 where they moved by SHIFT or are gone."""
    if after is None:
        return 0.0
    away = (after.points - before.points)[:, :2].norm(dim=1) / eye_distance(before.points)
    worst = max(float(away[list(group)].mean()) for group in LOOKS)
    return min(1.0, max(0.0, 1 - worst / SHIFT))


def _detail(image: Tensor) -> Tensor:
    """(h, w, 3) uint8 -> (3, h, w)."""
    x, height = rearrange(image, "h w c -> c h w").float(), image.shape[0]
    return _mean(x, FINE * height) - _mean(x, COARSE * height)


def _mean(x: Tensor, width: float) -> Tensor:
    """Over squares of about `width` pixels, an odd number; edges are repeated."""
    around = round((width - 1) / 2)
    return F.avg_pool2d(F.pad(x[None], (around,) * 4, mode="replicate"), 2 * around + 1, 1)[0]
