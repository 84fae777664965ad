"""`letstalk evaluate --suite real|dub --videos PATH`: films, and what a model makes of their sound.

real: of each video the calmest of its first frames is the portrait. The model speaks the video's own sound with
it, and mouth opening and width, read from both by the same landmarks, are compared: with the film of the same
sound, and with that of another clip, which is chance.

dub: every film gets the sound of the next one, or its own where there is only one. "dubbed" is `letstalk dub`;
"pasted" is a talking portrait of one of the film's frames, laid over the face of every frame with a soft edge.
What speech does not move must stay where it was filmed, and the mouth must open as in the film that is heard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.generate.dubbing import Dubbing
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.media.audio.decode import load_waveform
from letstalk_core.media.portrait.crop import fit_to
from letstalk_core.media.portrait.paste import PasteTrack
from letstalk_core.media.portrait.scene import MARGIN, RAISE_BY
from letstalk_core.media.portrait.track import CropTrack
from letstalk_core.media.video.reader import read_video
from letstalk_core.networks.face_points import CHIN, FOREHEAD

from .bundle_subject import BundleSubject
from .face_curves import CURVES, SHAPE, PointReader, bridged, face_curves
from .intervals import NOTHING, Interval, summarise
from .metrics import Array, correlation
from .photo_rows import real_rows
from .pictures import spread, thumbnails
from .report import Report, Row
from .store import ClipResult, Progress, Store
from .suite import LEAST_FRAMES
from .trials import Subject

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg")
FIRST_S = 1.0  # in which the portrait is looked for
COMPARED = ("opening", "width")
SHEET_FRAMES = 10
SIDE, FACE_SHARE = 256, 0.56  # pixels of the crop that distances are told in; of a crop's height, the face's
SMOOTHING = 2.0  # frames, of the pasted crop's way
OPENING = CURVES.index("opening")
AIMS = {
    "outside the mouth, px": "<= 1",
    "outside the mouth, 95 %, px": "",
    "opening, film of the sound": "",
    "opening, dubbed film": "",
}


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
        frames = list(read_video(path, fps=fps, max_frames=max(1, math.ceil(seconds * fps))))
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
    progress: Progress | None = None,
) -> Report:
    """Measure every film and write the report; a stopped run goes on.

    Raises: ConfigError, MediaError, OutputError.
    """
    if not films:
        raise ConfigError("there are no films to compare with; give a folder of them")
    settings = {"suite": "real", "seed": seed, "seconds": seconds, "fps": subject.fps, "size": subject.size}
    settings |= {"films": [path.name for path in films], **(notes or {})}

    def measure(i: int) -> ClipResult:
        film = Film.read(films[i], reader, fps=subject.fps, size=subject.size, seconds=seconds)
        made = subject.generate(film.portrait, film.waveform, seed + i).cpu()
        count = min(len(made), len(film.frames))
        curves = {"generated": face_curves(reader(made[:count])), "filmed": film.curves[:count]}
        rows = spread(count, SHEET_FRAMES)
        sheet = torch.cat([film.portrait[None], film.frames[rows], film.portrait[None], made[rows]])
        return ClipResult({}, curves, {"sheet": thumbnails(sheet)}, {"film": films[i].name})

    results = Store(out_dir / "work", settings).each("film", len(films), measure, progress)
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


@dataclass(frozen=True, eq=False)
class _Take:
    """A film as it is read: frames (t, h, w, 3) uint8, points (t, 478, 2), sound."""

    path: Path
    frames: Tensor
    points: Array
    waveform: Tensor

    @classmethod
    def read(cls, path: Path, reader: PointReader, fps: float, seconds: float) -> _Take:
        most = round(seconds * fps)
        frames = torch.stack([frame for frame in read_video(path, fps=fps, max_frames=most)])
        points = reader(frames)
        if len(frames) < LEAST_FRAMES or np.isfinite(points[:, 0, 0]).mean() < 0.5:
            raise MediaError(
                f"{path}: has {len(frames)} frames, {int(np.isfinite(points[:, 0, 0]).sum())} of them with a face;"
                f" use films of one person seen from the front, of at least {LEAST_FRAMES} frames"
            )
        return cls(path, frames, points, load_waveform(path)[: round(len(frames) / fps * 16_000)])

    @property
    def opening(self) -> Array:
        return bridged(face_curves(self.points)[:, OPENING])

    def track(self, size: tuple[int, int]) -> CropTrack:
        """The crop around the face of each frame."""
        flat = self.points[:, :468]
        boxes = torch.from_numpy(np.concatenate([flat.min(1), flat.max(1)], 1))
        image = (self.frames.shape[1], self.frames.shape[2])
        return CropTrack.around(boxes, image, size, MARGIN, RAISE_BY, SMOOTHING)

    def moved(self, points: Array) -> Array:
        """How far what speech does not move is from here (t, points), in pixels of a face crop of SIDE."""
        height = np.nanmedian(np.linalg.norm(self.points[:, FOREHEAD] - self.points[:, CHIN], axis=-1))
        apart = points[:, list(SHAPE)] - self.points[: len(points), list(SHAPE)]
        return np.asarray(np.linalg.norm(apart, axis=-1) * FACE_SHARE * SIDE / height)


def run_dub(
    subject: BundleSubject,
    films: Sequence[Path],
    reader: PointReader,
    *,
    out_dir: Path,
    seed: int = 0,
    seconds: float = 6.4,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure every film both ways and write the report; a stopped run goes on.

    Raises: ConfigError, MediaError, FaceNotFoundError, OutputError.
    """
    if not films:
        raise ConfigError("there are no films to dub; give one, or a folder of them")
    settings = {"suite": "dub", "seed": seed, "seconds": seconds, "fps": subject.fps, "size": subject.size}
    settings |= {"films": [path.name for path in films], **(notes or {})}

    def measure(i: int) -> ClipResult:
        film = _Take.read(films[i], reader, subject.fps, seconds)
        other = films[(i + 1) % len(films)]
        words = film if len(films) == 1 else _Take.read(other, reader, subject.fps, seconds)
        made = {way: make(subject, film, words, seed + i) for way, make in WAYS.items()}
        return _compared(film, words, made, reader)

    results = Store(out_dir / "work", settings).each("film", len(films), measure, progress)
    metrics = summarise([result.metrics for result in results])
    report = Report(settings, metrics, {"dub": results}, _rows(metrics))
    report.save(out_dir)
    return report


def _dubbed(subject: BundleSubject, film: _Take, words: _Take, seed: int) -> Tensor:
    sink = KeptFrames()
    Dubbing(subject.bundle).dub(film.path, words.waveform, sink, replace(subject.settings, seed=seed))
    if sink.state == "partial":  # Ctrl-C: half a film is no result
        raise KeyboardInterrupt
    return sink.video[: len(film.frames)]


def _pasted(subject: BundleSubject, film: _Take, words: _Take, seed: int) -> Tensor:
    track = film.track((subject.size, subject.size))
    calm = int(np.nanargmin(np.where(track.faces, face_curves(film.points)[:, OPENING], np.nan)))
    spoken = subject.generate(track.crops[calm].apply(film.frames[calm]), words.waveform, seed).cpu()
    paste = PasteTrack(track)
    return torch.stack([paste(i, new, old) for i, (new, old) in enumerate(zip(spoken, film.frames, strict=False))])


WAYS = {"dubbed": _dubbed, "pasted": _pasted}


def _compared(film: _Take, words: _Take, made: Mapping[str, Tensor], reader: PointReader) -> ClipResult:
    metrics: dict[str, float] = {}
    curves = {"film": film.opening, "words": words.opening}
    count = min(map(len, made.values()))
    shown = spread(count, SHEET_FRAMES)
    track = film.track((SIDE, SIDE))
    sheet = [torch.stack([track.crops[n].apply(film.frames[n]) for n in shown])]
    for way, frames in made.items():
        points = reader(frames)
        off, opening = film.moved(points), bridged(face_curves(points)[:, OPENING])
        off = off[np.isfinite(off)]
        metrics[f"{way}: outside the mouth, px"] = float(off.mean()) if off.size else math.nan
        metrics[f"{way}: outside the mouth, 95 %, px"] = float(np.percentile(off, 95)) if off.size else math.nan
        least = min(len(opening), len(words.opening))
        metrics[f"{way}: opening, film of the sound"] = correlation(opening[:least], words.opening[:least])
        if words is not film:
            metrics[f"{way}: opening, dubbed film"] = correlation(opening, film.opening[: len(opening)])
        curves[way] = opening
        sheet.append(torch.stack([track.crops[n].apply(frames[n]) for n in shown]))
    pictures = {"films": thumbnails(torch.cat(sheet), SIDE // 2)}
    return ClipResult(metrics, {}, pictures, {"film": film.path.name, "sound": words.path.name})


def _rows(metrics: Mapping[str, Interval]) -> list[Row]:
    rows = []
    for what, reach in AIMS.items():
        dubbed, pasted = (metrics.get(f"{way}: {what}", NOTHING) for way in WAYS)
        if dubbed.count:
            rows.append(Row.judged(f"dubbed: {what}", reach, dubbed, f"pasted {pasted}"))
    return rows
