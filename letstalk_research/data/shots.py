"""The usable shots of ordinary videos: where they begin and end, how they are cropped, why others are left out.

Crops are framed as `letstalk generate` frames a portrait. Source: docs/model.md, Data.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.portrait.scene import frame_face
from letstalk_core.media.video.reader import read_video
from letstalk_core.networks.config import Config
from letstalk_core.protocols import FaceDetector

FPS = 25
LOOK_EVERY = 10  # frames between looks at face and sharpness
LOOK_SIDE = 640  # longer side of the picture a face is looked for in


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(Config):
    """How videos are cut and what is left out. Raises: ConfigError."""

    kind = "prepare"

    size: Annotated[int, ">= 32", "a multiple of 32"] = 256  # side of the clips, pixels
    min_seconds: Annotated[float, "> 0"] = 1.2
    max_seconds: float = 10.0  # longer shots become several clips
    min_face: float = 0.25  # height of the face, as a share of `size`, in pixels of the video
    face_share: float = 0.8  # part of the looks that must find a face
    box: tuple[int, int, int, int] | None = None  # fixed crop x0 y0 x1 y1 instead of faces
    min_brightness: float = 25.0  # mean of 0..255
    min_sharpness: float = 8.0  # variance of the Laplacian of the grey crop at 256 px
    cut: float = 30.0  # mean difference of 0..255 between neighbouring small pictures that is a new shot
    # any frame at once, 0.3 GB a minute at 256 pixels; or small and slow
    video_format: Annotated[str, ("safetensors", "mp4")] = "safetensors"
    val_share: Annotated[float, ">= 0", "< 1"] = 0.05  # of the videos, or of their time
    # whole videos are validated on; or the end of all; auto: time for one video
    split: Annotated[str, ("auto", "video", "time")] = "auto"

    def validate(self) -> None:
        seconds = f"min_seconds={self.min_seconds} must be at most max_seconds={self.max_seconds}"
        self.require(self.min_seconds <= self.max_seconds, seconds)
        x0, y0, x1, y1 = self.box or (0, 0, 1, 1)
        self.require(x0 < x1 and y0 < y1, f"box={self.box} must be x0,y0,x1,y1 with x0 < x1 and y0 < y1")


@dataclass(frozen=True)
class Shot:
    """Frames [first, first + count) of a video that become one clip, and its crop x0 y0 side in pixels.

    faces: boxes (x0 y0 x1 y1) seen in it, by frame; empty for fixed crops. split: "train" or "val".
    """

    first: int
    count: int
    x0: int
    y0: int
    side: int
    faces: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)
    split: str = "train"


@dataclass
class _Look:
    """What one look at a frame showed."""

    frame: int
    face: tuple[float, float, float, float] | None
    brightness: float
    sharpness: float


def find_shots(
    path: str | Path, settings: PrepareSettings, detector: FaceDetector | None, reasons: Counter[str]
) -> Iterator[Shot]:
    """First reading: the usable shots of a video. Raises: MediaError if it cannot be read."""
    first, index, previous = 0, 0, None
    looks: list[_Look] = []
    frame_size = (0, 0)
    longest = round(settings.max_seconds * FPS)

    def judged(end: int) -> Iterator[Shot]:
        return _judge(first, end - first, looks, frame_size, settings, reasons, faces=detector is not None)

    for index, image in enumerate(read_video(path, FPS)):
        frame_size = (image.shape[0], image.shape[1])
        small = _grey(image, 32)
        is_cut = previous is not None and float((small - previous).abs().mean()) > settings.cut
        if is_cut or index - first >= longest:
            yield from judged(index)
            first, looks = index, []
        if (index - first) % LOOK_EVERY == 0:
            looks.append(_look(index, image, settings, detector))
        previous = small
    yield from judged(index + 1)


def _grey(image: Tensor, side: int) -> Tensor:
    """(h, w, 3) uint8 -> (side, side) float, 0..255."""
    step = max(1, min(image.shape[:2]) // (2 * side))
    x = rearrange(image[::step, ::step].float().mean(-1), "h w -> 1 1 h w")
    return F.interpolate(x, size=(side, side), mode="area")[0, 0]


def _look(index: int, image: Tensor, settings: PrepareSettings, detector: FaceDetector | None) -> _Look:
    height, width = image.shape[:2]
    face = None
    if detector is not None and settings.box is None:
        step = max(1, -(-max(height, width) // LOOK_SIDE))
        boxes = detector(image[::step, ::step].contiguous())
        if len(boxes):
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            x0, y0, x1, y1 = (float(v) * step for v in boxes[int(areas.argmax()), :4])
            face = (x0, y0, x1, y1)
    left, top, right, bottom = face or settings.box or (0, 0, width, height)
    patch = image[max(0, int(top)) : max(1, int(bottom)), max(0, int(left)) : max(1, int(right))]
    if min(patch.shape[:2]) < 8:
        return _Look(index, face, 0.0, 0.0)
    grey = _grey(patch, 256)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    laplacian = F.conv2d(grey[None, None], kernel[None, None])
    return _Look(index, face, float(grey.mean()), float(laplacian.var()))


def _judge(
    first: int,
    count: int,
    looks: Sequence[_Look],
    frame_size: tuple[int, int],
    settings: PrepareSettings,
    reasons: Counter[str],
    *,
    faces: bool,
) -> Iterator[Shot]:
    """The shot, or nothing and a reason counted."""
    height, width = frame_size
    found = {look.frame: look.face for look in looks if look.face is not None}
    reason = None
    if count < settings.min_seconds * FPS:
        reason = "too short"
    elif _median([k.brightness for k in looks]) < settings.min_brightness:
        reason = "too dark"
    elif _median([k.sharpness for k in looks]) < settings.min_sharpness:
        reason = "blurred"
    elif faces and settings.box is None:
        if len(found) < settings.face_share * len(looks):
            reason = "no face"
        elif _median([b[3] - b[1] for b in found.values()]) < settings.min_face * settings.size:
            reason = "face too small"
    if reason is not None:
        reasons[reason] += 1
        return
    if settings.box is not None:
        x0, y0, x1, y1 = settings.box
        if x1 > width or y1 > height:
            raise ConfigError(f"box {settings.box} leaves the picture of {width}x{height} pixels")
    elif found:
        usual = [_median([b[i] for b in found.values()]) for i in range(4)]
        crop = frame_face(usual, frame_size, (settings.size, settings.size))
        low, high = (
            [pick(b[i] for b in found.values()) for i in axes] for pick, axes in ((min, (0, 1)), (max, (2, 3)))
        )
        if max(b - a for a, b in zip(low, high, strict=True)) > crop.y1 - crop.y0:
            reasons["face moves too far"] += 1
            return
        x0, y0, x1, y1 = crop.x0, crop.y0, crop.x1, crop.y1
    else:
        x0, y0, x1, y1 = 0, 0, width, height
    side_pixels = min(x1 - x0, y1 - y0, width, height)
    left = min(max(0, (x0 + x1 - side_pixels) // 2), width - side_pixels)
    top = min(max(0, (y0 + y1 - side_pixels) // 2), height - side_pixels)
    yield Shot(first, count, left, top, side_pixels, found)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def hold_out(
    videos: Sequence[tuple[Path, Sequence[Shot]]], settings: PrepareSettings
) -> list[tuple[Path, list[Shot]]]:
    """The last `val_share` of the time of all shots becomes the validation split; the shot on the border is cut,
    where both parts are long enough."""
    shortest = math.ceil(settings.min_seconds * FPS)
    left = round((1 - settings.val_share) * sum(shot.count for _, shots in videos for shot in shots))
    result = []
    for video, shots in videos:
        parts: list[Shot] = []
        for shot in shots:
            train = min(shot.count, max(0, left))
            left -= shot.count
            if 0 < train < shot.count and min(train, shot.count - train) < shortest:
                train = shot.count if 2 * train > shot.count else 0
            if train:
                parts.append(dataclasses.replace(shot, count=train))
            if train < shot.count:
                first, count = shot.first + train, shot.count - train
                parts.append(dataclasses.replace(shot, first=first, count=count, split="val"))
        result.append((video, parts))
    return result
