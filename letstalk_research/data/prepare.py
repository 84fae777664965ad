"""Ordinary videos of talking heads into a training folder: shots, cropped to the face, at 25 fps and 16 kHz.

Each video is read twice: once to find shots and faces, once to crop and write, so memory does not depend on its
length. Crops are framed as `letstalk generate` frames a portrait. What is left out is counted by reason. Source:
docs/model.md, Data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.files import atomic_path
from letstalk_core.media.audio.alignment import SAMPLES_PER_FRAME
from letstalk_core.media.audio.decode import load_video_sound
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.scene import frame_face
from letstalk_core.media.video.reader import read_video
from letstalk_core.protocols import FaceDetector

from .manifest import ClipRecord, Manifest, append_records
from .video_clips import write_video_clip

__all__ = ["PrepareReport", "PrepareSettings", "Shot", "find_shots", "hold_out", "prepare_videos"]

logger = logging.getLogger(__name__)
FPS = 25
LOOK_EVERY = 10  # frames between looks at face and sharpness
LOOK_SIDE = 640  # longer side of the picture a face is looked for in
# Where mouth and eyes lie in a detected face box: x0, y0, x1, y1 as shares of its width and height.
FACE_PARTS = ((0.22, 0.66, 0.78, 0.95), (0.10, 0.20, 0.48, 0.48), (0.52, 0.20, 0.90, 0.48))


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How videos are cut and what is left out. Raises: ConfigError."""

    size: int = 256  # side of the clips, pixels
    min_seconds: float = 1.2
    max_seconds: float = 10.0  # longer shots become several clips
    min_face: float = 0.25  # height of the face, as a share of `size`, in pixels of the video
    face_share: float = 0.8  # part of the looks that must find a face
    box: tuple[int, int, int, int] | None = None  # fixed crop x0 y0 x1 y1 instead of faces
    min_brightness: float = 25.0  # mean of 0..255
    min_sharpness: float = 8.0  # variance of the Laplacian of the grey crop at 256 px
    cut: float = 30.0  # mean difference of 0..255 between neighbouring small pictures that is a new shot
    video_format: str = "safetensors"  # any frame at once, 0.3 GB a minute at 256 pixels; or "mp4", small and slow
    val_share: float = 0.05  # of the videos, or of their time
    split: str = "auto"  # "video": whole videos are validated on; "time": the end of all; auto: time for one video

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise ConfigError(f"size={self.size} must be a multiple of 32 pixels")
        if not 0 < self.min_seconds <= self.max_seconds:
            raise ConfigError(
                f"min_seconds={self.min_seconds}, max_seconds={self.max_seconds}: needs 0 < min <= max"
            )
        if self.video_format not in ("mp4", "safetensors"):
            raise ConfigError(f"format {self.video_format!r} must be mp4 or safetensors")
        if self.split not in ("auto", "video", "time"):
            raise ConfigError(f"split {self.split!r} must be auto, video or time")
        if not 0 <= self.val_share < 1:
            raise ConfigError(f"val_share={self.val_share} must be in 0..1, not 1")
        if self.box is not None and (self.box[0] >= self.box[2] or self.box[1] >= self.box[3]):
            raise ConfigError(f"box {self.box} must be x0,y0,x1,y1 with x0 < x1 and y0 < y1")


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
class PrepareReport:
    """What came of it. `reasons` counts what was left out: whole videos or single shots."""

    videos: int = 0
    clips: int = 0
    frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class _Look:
    """What one look at a frame showed."""

    frame: int
    face: tuple[float, float, float, float] | None
    brightness: float
    sharpness: float


def find_shots(
    path: str | os.PathLike[str],
    settings: PrepareSettings,
    detector: FaceDetector | None,
    reasons: Counter[str],
) -> Iterator[Shot]:
    """First reading: the usable shots of a video. Raises: MediaError if it cannot be read."""
    first, index, previous = 0, 0, None
    looks: list[_Look] = []
    frame_size = (0, 0)
    longest = round(settings.max_seconds * FPS)
    for index, image in enumerate(read_video(path, FPS)):
        frame_size = (image.shape[0], image.shape[1])
        small = _grey(image, 32)
        is_cut = previous is not None and float((small - previous).abs().mean()) > settings.cut
        if is_cut or index - first >= longest:
            yield from _judge(
                first, index - first, looks, frame_size, settings, reasons, faces=detector is not None
            )
            first, looks = index, []
        if (index - first) % LOOK_EVERY == 0:
            looks.append(_look(index, image, settings, detector))
        previous = small
    yield from _judge(first, index + 1 - first, looks, frame_size, settings, reasons, faces=detector is not None)


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


def prepare_videos(
    videos: Iterable[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    settings: PrepareSettings,
    detector: FaceDetector | None = None,
) -> PrepareReport:
    """Cut videos into clips of a training folder; clips that are there already are kept.

    With a detector the crop follows the largest face of each shot; without one it is the box or the middle.
    Unusable videos and shots are left out and counted. Raises: OutputError, ConfigError.
    """
    folder, report, videos = Path(folder), PrepareReport(), [Path(v) for v in videos]
    have = Manifest(folder, missing_ok=True)

    def shots_of(video: Path) -> list[Shot]:
        report.videos += 1
        with _counted(report.reasons):
            return list(find_shots(video, settings, detector, report.reasons))
        return []

    by_time = settings.split == "time" or (settings.split == "auto" and len(videos) == 1)
    plan = ((video, shots_of(video)) for video in videos)
    for video, shots in hold_out(list(plan), settings) if by_time else plan:
        if not by_time and _mark(video)[1] < settings.val_share:
            shots = [dataclasses.replace(shot, split="val") for shot in shots]
        with _counted(report.reasons):
            sound = load_video_sound(video) if shots else torch.zeros(0)
            for record in _cut(video, shots, sound, folder, settings, have, report.reasons):
                append_records(folder, [record])
                report.clips += 1
                report.frames += record.frames
    return report


@contextlib.contextmanager
def _counted(reasons: Counter[str]) -> Iterator[None]:
    """A video that cannot be used ends the block and counts."""
    try:
        yield
    except MediaError as error:
        logger.warning("left out: %s", error)
        reasons["no sound" if "audio stream" in str(error) else "unreadable"] += 1


def _mark(video: Path) -> tuple[str, float]:
    """What tells a video from others of its name, and a random number from 0 to 1 that is its own."""
    digest = hashlib.sha256(str(video.resolve()).encode()).hexdigest()
    return digest[:6], int(digest[:8], 16) / 2**32


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
                rest = {"first": shot.first + train, "count": shot.count - train}
                parts.append(dataclasses.replace(shot, **rest, split="val"))
        result.append((video, parts))
    return result


def _cut(
    video: Path,
    shots: Sequence[Shot],
    sound: Tensor,
    folder: Path,
    settings: PrepareSettings,
    have: Manifest,
    reasons: Counter[str],
) -> Iterator[ClipRecord]:
    """Second reading: crop and write the shots."""
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', video.stem).strip('-')[:40] or 'video'}-{_mark(video)[0]}"
    frames = enumerate(read_video(video, FPS))
    for number, shot in enumerate(shots):
        clip_id = f"{name}-{number:04d}"
        start = shot.first * SAMPLES_PER_FRAME
        heard = sound[start : start + shot.count * SAMPLES_PER_FRAME]
        if clip_id in have:
            continue
        if heard.numel() < (shot.count - FPS // 2) * SAMPLES_PER_FRAME or float(heard.square().mean()) < 1e-7:
            reasons["silent"] += 1
            continue
        heard = F.pad(heard, (0, shot.count * SAMPLES_PER_FRAME - heard.numel()))
        images = []
        for index, image in frames:
            if index >= shot.first:
                images.append(_crop(image, shot, settings.size))
            if index == shot.first + shot.count - 1:
                break
        if len(images) < shot.count:
            raise MediaError(f"{video}: became shorter while it was read; do not change it during a run")
        path = f"clips/{clip_id}.{settings.video_format}"
        _write(folder / path, torch.stack(images), heard, _regions(shot, settings.size))
        yield ClipRecord(id=clip_id, clip=path, frames=shot.count, identity=name, split=shot.split, fps=float(FPS))


def _crop(image: Tensor, shot: Shot, size: int) -> Tensor:
    return resize(image[shot.y0 : shot.y0 + shot.side, shot.x0 : shot.x0 + shot.side], (size, size))


def _regions(shot: Shot, size: int) -> Tensor:
    """Boxes (t, 3, 4) of mouth and eyes guessed from the nearest detected face; zeros without faces."""
    boxes = torch.zeros(shot.count, 3, 4)
    for i in range(shot.count if shot.faces else 0):
        x0, y0, x1, y1 = shot.faces[min(shot.faces, key=lambda f: abs(f - shot.first - i))]
        for part, (a, b, c, d) in enumerate(FACE_PARTS):
            corners = (x0 + a * (x1 - x0), y0 + b * (y1 - y0), x0 + c * (x1 - x0), y0 + d * (y1 - y0))
            boxes[i, part] = torch.tensor(corners)
    origin = torch.tensor([shot.x0, shot.y0, shot.x0, shot.y0]).float()
    scaled = (boxes - origin) * (size / shot.side)
    return (scaled.clamp(0, size) * (boxes.sum(-1, keepdim=True) > 0)).round().to(torch.int16)


def _write(path: Path, images: Tensor, sound: Tensor, regions: Tensor) -> None:
    """A clip file; a video gets its boxes beside it."""
    if path.suffix == ".mp4":
        write_video_clip(path, images, sound, FPS)
        with atomic_path(path.with_suffix(".regions.safetensors")) as temporary:
            save_file({"regions": regions.contiguous()}, str(temporary))
        return
    tensors = {
        "frames": images,
        "audio": (sound.clamp(-1, 1) * 32767).to(torch.int16),
        "regions": regions.contiguous(),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary))
