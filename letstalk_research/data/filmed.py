"""What landmarks tell of a clip of a filmed face: how head, lids, gaze and brows move, where mouth and eyes are,
and which of its frames are good portraits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from letstalk_core.media.filmed_motion import read_faces
from letstalk_core.media.portrait.find import Face, FaceFinder
from letstalk_core.networks.motion_channels import MOVEMENTS

from .photo.truth import regions as boxes_of

__all__ = ["FilmReader", "Reading"]

PORTRAITS = 2  # of a clip: the calmest frame of each half
SEEN = 0.8  # part of the frames that must show a face


@dataclass(frozen=True)
class Reading:
    """regions (t, 3, 4) int16 as in `data.clips`, motion (t, 11) float16 about the clip's usual look, portraits:
    numbers of calm frames."""

    regions: Tensor
    motion: Tensor
    portraits: list[int]
    names: tuple[str, ...] = MOVEMENTS


class FilmReader:
    """Reads with the bundled networks, or with those of a finder."""

    def __init__(self, finder: FaceFinder | None = None) -> None:
        self.finder = finder

    def __call__(self, images: Tensor) -> Reading | None:
        """Square frames (t, h, w, 3) uint8 of one shot; None where too few show a face."""
        points: list[Tensor | None] = []

        def seen(index: int, face: Face | None) -> None:
            points.append(None if face is None else face.points[:, :2])

        faces = read_faces(images, self.finder, seen)
        there = torch.tensor([p is not None for p in points])
        if float(there.float().mean()) < SEEN:
            return None
        known = there.nonzero().flatten()
        nearest = (torch.arange(len(images))[:, None] - known).abs().argmin(1)
        size = images.shape[1]
        found = torch.stack([p for p in points if p is not None]) / size * 2 - 1
        motion = faces.motion().rows
        calm = motion[:, [MOVEMENTS.index(name) for name in ("blink", "gaze_x", "yaw", "pitch")]].abs().sum(1)
        worth = (4 * faces.opening + calm).nan_to_num(torch.inf)
        middle = max(1, len(images) // PORTRAITS)
        portraits = {int(part.argmin()) + i * middle for i, part in enumerate(worth.split(middle)[:PORTRAITS])}
        return Reading(
            regions=boxes_of(found[None], size)[0][nearest],
            motion=motion.half(),
            portraits=sorted(portraits),
        )
