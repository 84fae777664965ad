"""`letstalk evaluate --suite real --videos DIR`: filmed people, and what a model makes of their sound.

Of each video the calmest of its first frames is the portrait. The model speaks the video's own sound with it, and
mouth opening and width, read from both by the same landmarks, are compared: with the film of the same sound, and
with that of another clip, which is chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.media.audio.decode import load_waveform
from letstalk_core.media.portrait.crop import fit_to
from letstalk_core.media.video.reader import read_video

from .face_curves import CURVES, PointReader, bridged, face_curves
from .intervals import summarise
from .metrics import correlation
from .photo_rows import real_rows
from .pictures import spread, thumbnails
from .report import Report
from .store import ClipResult, Store
from .suite import LEAST_FRAMES
from .trials import Subject

__all__ = ["Film", "find_films", "run_real"]

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg")
FACE_SHARE = 0.56  # of the height of the crop
FIRST_S = 1.0  # in which the portrait is looked for
COMPARED = ("opening", "width")
SHEET_FRAMES = 10

Array = NDArray[np.float64]


def find_films(folder: Path) -> list[Path]:
    """The videos of a folder, by name, or the one that is named. Raises: MediaError without any."""
    if folder.is_file():
        return [folder]
    found = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES] if folder.is_dir() else []
    if not found:
        raise MediaError(f"--videos {folder}: holds no video; give a folder of filmed speakers")
    return found


@dataclass(frozen=True, eq=False)
class Film:
    """A filmed speaker: portrait (size, size, 3) uint8, crops of the frames, curves (t, len(CURVES)), sound."""

    portrait: Tensor
    frames: Tensor
    curves: Array
    waveform: Tensor

    @classmethod
    def read(cls, path: Path, reader: PointReader, *, fps: float, size: int, seconds: float) -> Film:
        """Up to `seconds` of a video. Raises: MediaError for one without a face, or too short."""
        frames = []
        for frame in read_video(path, fps=fps):
            frames.append(frame)
            if len(frames) >= seconds * fps:
                break
        if len(frames) < LEAST_FRAMES:
            raise MediaError(f"{path}: is too short; needs at least {LEAST_FRAMES} frames")
        pictures = torch.stack(frames)
        points = reader(pictures)
        curves = face_curves(points)
        found = np.isfinite(curves[:, 0])
        if found.mean() < 0.5:
            raise MediaError(f"{path}: no face in most frames; use films of one person seen from the front")
        early = np.flatnonzero(found)[: max(1, round(FIRST_S * fps))]
        worth = curves[early, CURVES.index("opening")] + 0.2 * curves[early, CURVES.index("lids")].clip(min=0)
        chosen = int(early[worth.argmin()])
        crops = _crop(pictures, points[chosen], size)
        waveform = load_waveform(path)[: round(len(frames) / fps * 16_000)]
        return cls(crops[chosen], crops, curves, waveform)


def _crop(pictures: Tensor, points: Array, size: int) -> Tensor:
    """The square round the face of one frame, out of all of them: (t, h, w, 3) -> (t, size, size, 3)."""
    low, high = points[:468].min(0), points[:468].max(0)
    height, width = pictures.shape[1:3]
    side = min(round((high[1] - low[1]) / FACE_SHARE), height, width)
    x, y = (round(float(v)) for v in (low + high) / 2 - (side / 2, 0.54 * side))
    x, y = min(max(0, x), width - side), min(max(0, y), height - side)
    return torch.stack([fit_to(p, (size, size)) for p in pictures[:, y : y + side, x : x + side]])


def run_real(
    subject: Subject,
    films: Sequence[Path],
    reader: PointReader,
    *,
    out_dir: Path,
    seed: int = 0,
    seconds: float = 6.4,
    notes: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int, ClipResult, bool], None] | None = None,
) -> Report:
    """Measure every film and write the report; a stopped run goes on.

    Raises: ConfigError, MediaError, OutputError.
    """
    if not films:
        raise ConfigError("there are no films to compare with; give a folder of them")
    settings = {"suite": "real", "seed": seed, "seconds": seconds, "fps": subject.fps, "size": subject.size}
    settings |= {"films": [path.name for path in films], **(notes or {})}
    store = Store(out_dir / "work", settings)
    results = []
    for i, path in enumerate(films):

        def measure(path: Path = path, i: int = i) -> ClipResult:
            film = Film.read(path, reader, fps=subject.fps, size=subject.size, seconds=seconds)
            made = subject.generate(film.portrait, film.waveform, seed + i).cpu()
            count = min(len(made), len(film.frames))
            curves = {"generated": face_curves(reader(made[:count])), "filmed": film.curves[:count]}
            rows = spread(count, SHEET_FRAMES)
            sheet = torch.cat([film.portrait[None], film.frames[rows], film.portrait[None], made[rows]])
            return ClipResult({}, curves, {"sheet": thumbnails(sheet)}, {"film": path.name})

        result, kept = store.get(f"film_{i:03d}", measure)
        results.append(result)
        if progress is not None:
            progress("film", i + 1, len(films), result, kept)
    for i, result in enumerate(results):
        other = results[(i + 1) % len(results)].curves["filmed"]
        for name in COMPARED:
            column = CURVES.index(name)
            ours, theirs, chance = (
                bridged(c[:, column]) for c in (result.curves["generated"], result.curves["filmed"], other)
            )
            count = min(len(ours), len(chance))
            same = correlation(ours, theirs)
            another = correlation(ours[:count], chance[:count]) if len(results) > 1 else math.nan
            result.metrics[f"{name}: same sound"], result.metrics[f"{name}: another"] = same, another
            result.metrics[f"{name}: margin"] = same - another
    metrics = summarise([r.metrics for r in results])
    report = Report(settings, metrics, {"film": results}, real_rows(metrics))
    report.save(out_dir)
    return report
