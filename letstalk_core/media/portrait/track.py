"""The face of a video over time: one crop for each frame, steady but without lag, and where there is no face."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ConfigError, FaceNotFoundError
from .boxes import NO_FACE
from .crop import CropTransform

REACH = 3.0  # standard deviations; what lies farther away has no weight
CUT = 1.0  # a face that jumps farther than its own longer side is another shot


@dataclass(frozen=True, kw_only=True)
class CropTrack:
    """Crops of the frames of a video, or of the one frame of a still; all of one picture size and one crop size.

    Where `faces` is False the frame shows no face: its crop comes from its neighbours, and nothing belongs pasted
    over it. Raises: ConfigError.
    """

    crops: tuple[CropTransform, ...]
    faces: tuple[bool, ...]

    def __post_init__(self) -> None:
        sizes = {(c.image_height, c.image_width, c.height, c.width) for c in self.crops}
        if len(sizes) != 1 or len(self.crops) != len(self.faces):
            raise ConfigError(
                f"a track needs crops of one size and a mark for each, got {len(self.crops)} crops of"
                f" {len(sizes)} sizes and {len(self.faces)} marks"
            )

    @classmethod
    def around(
        cls,
        boxes: Tensor,
        image_size: tuple[int, int],
        size: tuple[int, int],
        margin: float = 0.6,
        raise_by: float = 0.1,
        smoothing: float = 0.0,
    ) -> CropTrack:
        """Crops around face boxes (t, 4), NaN where there is no face; sizes are (height, width).

        `smoothing` as in `steady_boxes`, the rest as in `CropTransform.around`. Raises: FaceNotFoundError if no
        frame has a face, ConfigError.
        """
        faces = boxes.isfinite().all(1)
        steady = steady_boxes(boxes, smoothing)
        crops = tuple(CropTransform.around(box, image_size, size, margin, raise_by) for box in steady)
        return cls(crops=crops, faces=tuple(faces.tolist()))

    @classmethod
    def centre(cls, image_size: tuple[int, int], size: tuple[int, int], frames: int = 1) -> CropTrack:
        """The middle of every frame, as large as fits."""
        return cls(crops=(CropTransform.centre(image_size, size),) * frames, faces=(True,) * frames)

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.crops[0].image_height, self.crops[0].image_width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crops."""
        return self.crops[0].height, self.crops[0].width

    def resized(self, image_size: tuple[int, int]) -> CropTrack:
        """The same boxes on pictures scaled to `image_size` (height, width). Raises: ConfigError."""
        return dataclasses.replace(self, crops=tuple(crop.on_picture(image_size) for crop in self.crops))


def follow_face(found: Iterable[Tensor], confidence: float = 0.5) -> Tensor:
    """One face through a video: boxes (n, 5) of each frame, with confidence -> (t, 4) float64, NaN without a face.

    The largest face comes first, then in each frame the one nearest to it; where the nearest is farther away than
    the face is large, the scene has changed and the largest face counts again.
    """
    boxes, last = [], None
    for faces in found:
        faces = faces.double()
        width, height = faces[:, 2] - faces[:, 0], faces[:, 3] - faces[:, 1]
        sure = faces.isfinite().all(1) & (faces[:, 4] >= confidence) & (width > 0) & (height > 0)
        faces, area = faces[sure, :4], (width * height)[sure]
        if len(faces) == 0:
            boxes.append(torch.tensor(NO_FACE, dtype=torch.float64))
            continue
        chosen = faces[area.argmax()]
        if last is not None:
            jumps = torch.stack([_jump(last, face) for face in faces])
            chosen = faces[jumps.argmin()] if jumps.min() <= CUT else chosen
        boxes.append(chosen)
        last = chosen
    return torch.stack(boxes) if boxes else torch.zeros(0, 4, dtype=torch.float64)


def steady_boxes(boxes: Tensor, smoothing: float = 0.0) -> Tensor:
    """Boxes (t, 4), NaN where there is no face -> (t, 4) float64 without gaps, averaged over time.

    `smoothing` is the standard deviation, in frames, of a Gaussian window. The window is symmetric, also near the
    ends, where it shrinks: what stands still or moves evenly stays as it is, and nothing lags behind. Gaps are
    bridged in straight lines. No average goes across a cut. Raises: FaceNotFoundError if there is no box at all.
    """
    if not (math.isfinite(smoothing) and smoothing >= 0):
        raise ConfigError(f"smoothing={smoothing} must be 0 or more frames")
    boxes = boxes.double()
    present = boxes.isfinite().all(1).nonzero().flatten().tolist()
    if not present:
        raise FaceNotFoundError(f"no face in any of the {len(boxes)} frames; give the box yourself")
    steady = torch.empty_like(boxes)
    for shot in _shots(boxes, present):
        start = 0 if shot[0] == present[0] else shot[0]
        following = [i for i in present if i > shot[-1]]
        end = following[0] if following else len(boxes)
        known = torch.zeros(end - start, dtype=torch.bool)
        known[torch.tensor(shot) - start] = True
        steady[start:end] = averaged(bridged(boxes[start:end], known), smoothing)
    return steady


def _jump(before: Tensor, after: Tensor) -> Tensor:
    """How far the middle of a box moved, in longer sides of the larger of both boxes."""
    side = torch.stack([before[2:] - before[:2], after[2:] - after[:2]]).max()
    return (after[:2] + after[2:] - before[:2] - before[2:]).norm() / 2 / side


def _shots(boxes: Tensor, present: list[int]) -> list[list[int]]:
    """The frames with a face, split where the face jumps."""
    shots = [[present[0]]]
    for before, after in zip(present, present[1:], strict=False):
        if _jump(boxes[before], boxes[after]) > CUT:
            shots.append([])
        shots[-1].append(after)
    return shots


def bridged(rows: Tensor, known: Tensor) -> Tensor:
    """Rows (t, c) with those not known (t,) in straight lines between their neighbours, held at both ends."""
    at = torch.arange(len(rows))
    there = at[known]
    right = torch.searchsorted(there, at).clamp(max=len(there) - 1)
    left = (right - 1).clamp(min=0)
    a, b = there[left], there[right]
    share = ((at - a) / (b - a).clamp(min=1)).clamp(0, 1).double()[:, None]
    return torch.lerp(rows[a], rows[b], share)


def averaged(boxes: Tensor, deviation: float) -> Tensor:
    """Gaussian average of (t, c) over time, with as many frames before as after each."""
    count = len(boxes)
    moved = boxes - boxes[:1]  # differences, so that constant boxes stay exactly what they are
    total, weights = moved.clone(), torch.ones(count, 1, dtype=boxes.dtype)
    for distance in range(1, min(math.floor(REACH * deviation), (count - 1) // 2) + 1):
        weight = math.exp(-0.5 * (distance / deviation) ** 2)
        middle = slice(distance, count - distance)
        total[middle] += weight * (moved[: count - 2 * distance] + moved[2 * distance :])
        weights[middle] += 2 * weight
    return boxes[:1] + total / weights
