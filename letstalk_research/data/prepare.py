"""Ordinary videos of talking heads into a training folder: shots, cropped to the face, at 25 fps and 16 kHz.

Each video is read twice: once to find shots and faces, once to crop and write, so memory does not depend on its
length. What is left out is counted by reason. Source: docs/model.md, Data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.media.audio.alignment import SAMPLES_PER_FRAME
from letstalk_core.media.audio.decode import load_video_sound
from letstalk_core.media.filmed_motion import read_faces
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.find import Face, FaceFinder
from letstalk_core.media.video.reader import read_video
from letstalk_core.networks.motion_channels import MOVEMENTS
from letstalk_core.protocols import FaceDetector

from ..output import save_tensors
from .manifest import ClipRecord, Manifest, append_records
from .photo.truth import regions as boxes_of
from .shots import FPS, PrepareSettings, Shot, find_shots, hold_out
from .video_clips import write_video_clip

logger = logging.getLogger(__name__)
# Where mouth and eyes lie in a detected face box: x0, y0, x1, y1 as shares of its width and height.
FACE_PARTS = ((0.22, 0.66, 0.78, 0.95), (0.10, 0.20, 0.48, 0.48), (0.52, 0.20, 0.90, 0.48))
PORTRAITS = 2  # of a clip: the calmest frame of each half
SEEN = 0.8  # part of the frames that must show a face


@dataclass
class PrepareReport:
    """What came of it. `reasons` counts what was left out: whole videos or single shots."""

    videos: int = 0
    clips: int = 0
    frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def prepare_videos(
    videos: Iterable[str | Path],
    folder: str | Path,
    settings: PrepareSettings,
    detector: FaceDetector | None = None,
    read: Callable[[Tensor], Reading | None] | None = None,
    watch: Callable[[str, int, int], None] | None = None,
) -> PrepareReport:
    """Cut videos into clips of a training folder; clips that are there already are kept.

    With a detector the crop follows the largest face of each shot; without one it is the box or the middle. `read`
    measures motion and places in the frames of a clip (safetensors only); without it nobody knows the motion, and
    places are guessed from the boxes. `watch` is told what was done ("looked at", "cut") with how many videos.
    Unusable videos and shots are left out and counted. Raises: OutputError, ConfigError.
    """
    folder, report, files = Path(folder), PrepareReport(), [Path(video) for video in videos]
    have = Manifest(folder, missing_ok=True)

    def shots_of(video: Path) -> list[Shot]:
        report.videos += 1
        if watch is not None:
            watch("looked at", report.videos, len(files))
        with _counted(report.reasons):
            return list(find_shots(video, settings, detector, report.reasons))
        return []

    if read is not None and settings.video_format != "safetensors":
        raise ConfigError(f"format {settings.video_format!r} has no place for motion; use safetensors")
    by_time = settings.split == "time" or (settings.split == "auto" and len(files) == 1)
    plan = ((video, shots_of(video)) for video in files)
    for number, (video, shots) in enumerate(hold_out(list(plan), settings) if by_time else plan):
        if not by_time and _mark(video)[1] < settings.val_share:
            shots = [dataclasses.replace(shot, split="val") for shot in shots]
        with _counted(report.reasons):
            sound = load_video_sound(video) if shots else torch.zeros(0)
            for record in _cut(video, shots, sound, folder, settings, have, report.reasons, read):
                append_records(folder, [record])
                report.clips += 1
                report.frames += record.frames
        if watch is not None:
            watch("cut", number + 1, len(files))
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


def _cut(
    video: Path,
    shots: Sequence[Shot],
    sound: Tensor,
    folder: Path,
    settings: PrepareSettings,
    have: Manifest,
    reasons: Counter[str],
    read: Callable[[Tensor], Reading | None] | None,
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
        path, pictures = f"clips/{clip_id}.{settings.video_format}", torch.stack(images)
        reading = read(pictures) if read is not None else None
        if read is not None and reading is None:
            reasons["no face"] += 1
            continue
        _write(folder / path, pictures, heard, reading or _regions(shot, settings.size))
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


def _write(path: Path, images: Tensor, sound: Tensor, known: Reading | Tensor) -> None:
    """A clip file; a video gets its boxes beside it. `known`: what was measured, or boxes that were guessed."""
    if path.suffix == ".mp4":
        assert isinstance(known, Tensor)
        write_video_clip(path, images, sound, FPS)
        save_tensors(path.with_suffix(".regions.safetensors"), {"regions": known})
        return
    tensors, metadata = {"frames": images, "audio": (sound.clamp(-1, 1) * 32767).to(torch.int16)}, {}
    if isinstance(known, Tensor):
        tensors["regions"] = known
    else:
        metadata["motion"] = ",".join(known.names)
        tensors |= {"regions": known.regions, "motion": known.motion, "portraits": images[known.portraits]}
        tensors["portrait_regions"] = known.regions[known.portraits]
        tensors["portrait_motion"] = known.motion[known.portraits]
    save_tensors(path, tensors, metadata)


@dataclass(frozen=True)
class Reading:
    """regions (t, 3, 4) int16 as in `data.clips`, motion (t, 13) float16 about the clip's usual look and, of the
    mouth, in eye distances, portraits: numbers of calm frames."""

    regions: Tensor
    motion: Tensor
    portraits: list[int]
    names: tuple[str, ...] = (*MOVEMENTS, "opening", "width")


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
        mouth = torch.stack([faces.opening, faces.width], 1)[known][nearest].to(motion)
        calm = motion[:, [MOVEMENTS.index(name) for name in ("blink", "gaze_x", "yaw", "pitch")]].abs().sum(1)
        worth = (4 * faces.opening + calm).nan_to_num(torch.inf)
        middle = max(1, len(images) // PORTRAITS)
        portraits = {int(part.argmin()) + i * middle for i, part in enumerate(worth.split(middle)[:PORTRAITS])}
        return Reading(
            regions=boxes_of(found[None], size)[0][nearest],
            motion=torch.cat([motion, mouth], 1).half(),
            portraits=sorted(portraits),
        )
