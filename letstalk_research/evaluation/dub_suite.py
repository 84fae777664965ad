"""`letstalk evaluate --suite dub --videos PATH`: films that say other words, dubbed and simply pasted.

Every film gets the sound of the next one, or its own where there is only one. "dubbed" is `letstalk dub`; "pasted"
is a talking portrait of one of the film's frames, laid over the face of every frame with a soft edge. The same
landmarks are read from film and results: what speech does not move must stay where it was filmed, and the mouth
must open as in the film whose sound is heard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from letstalk_core.media.portrait.paste import PasteTrack
from letstalk_core.media.portrait.scene import MARGIN, RAISE_BY
from letstalk_core.media.portrait.track import CropTrack
from letstalk_core.media.video.reader import read_video
from letstalk_core.networks.face_points import CHIN, FOREHEAD

from .bundle_subject import BundleSubject
from .face_curves import CURVES, SHAPE, Array, PointReader, bridged, face_curves
from .intervals import NOTHING, Interval, summarise
from .metrics import correlation
from .pictures import spread, thumbnails
from .report import Report, Row
from .store import ClipResult, Store
from .suite import LEAST_FRAMES

__all__ = ["run_dub"]

WAYS = ("dubbed", "pasted")
SIDE, FACE_SHARE = 256, 0.56  # pixels of the crop that distances are told in; of its height, the face's
SMOOTHING = 2.0  # frames, of the pasted crop's way
SHEET_FRAMES = 10
OPENING = CURVES.index("opening")


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
    progress: Callable[[str, int, int, ClipResult, bool], None] | None = None,
) -> Report:
    """Measure every film both ways and write the report; a stopped run goes on.

    Raises: ConfigError, MediaError, FaceNotFoundError, OutputError.
    """
    if not films:
        raise ConfigError("there are no films to dub; give one, or a folder of them")
    settings = {"suite": "dub", "seed": seed, "seconds": seconds, "fps": subject.fps, "size": subject.size}
    settings |= {"films": [path.name for path in films], **(notes or {})}
    store = Store(out_dir / "work", settings)
    results = []
    for i, path in enumerate(films):

        def measure(path: Path = path, i: int = i) -> ClipResult:
            film = _Take.read(path, reader, subject.fps, seconds)
            words = (
                film if len(films) == 1 else _Take.read(films[(i + 1) % len(films)], reader, subject.fps, seconds)
            )
            made = {
                "dubbed": _dubbed(subject, film, words, seed + i),
                "pasted": _pasted(subject, film, words, seed + i),
            }
            return _compared(film, words, made, reader)

        result, kept = store.get(f"film_{i:03d}", measure)
        results.append(result)
        if progress is not None:
            progress("film", i + 1, len(films), result, kept)
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
    for what, reach in (
        ("outside the mouth, px", "<= 1"),
        ("outside the mouth, 95 %, px", ""),
        ("opening, film of the sound", ""),
        ("opening, dubbed film", ""),
    ):
        values = {way: metrics.get(f"{way}: {what}", NOTHING) for way in WAYS}
        if values["dubbed"].count:
            met = values["dubbed"].mean <= 1 if reach else None
            rows.append(Row(f"dubbed: {what}", reach, values["dubbed"], met, f"pasted {values['pasted']}"))
    return rows
