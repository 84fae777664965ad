"""`letstalk evaluate --suite photo`: held-out photographs say held-out sentences.

Parts, each resumable clip by clip: speed, photo (one clip a still), long (one video of minutes, if asked for).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ

from ..data.synthetic.dataset import FPS
from ..data.synthetic.speech import write_wav
from ..data.synthetic.texts import Speaker, random_utterance
from .face_curves import PointReader, shape_error
from .intervals import Interval, summarise, trend
from .metrics import cell_colors, correlation, gradient_energy
from .photo_clip import PhotoSubject, measure_photo
from .photo_rows import SLOPES, photo_rows
from .photo_trials import STREAM, PhotoTrial, TestStill, draw_photo_trial
from .pictures import thumbnails
from .report import Report
from .store import ClipResult, Store

PARTS = ("speed", "photo", "long")
TILE, SHEET_STEP_S = 192, 20

Array = NDArray[np.float64]
Show = Callable[[str, int, int, ClipResult, bool], None]


@dataclass(frozen=True, kw_only=True)
class PhotoBudget:
    """How much of each part. `long_minutes` 0 leaves that part out."""

    clips: int = 44
    seconds: float = 4.0
    long_minutes: float = 0.0
    speed_seconds: float = 2.56
    speed_runs: int = 3

    @classmethod
    def quick(cls) -> PhotoBudget:
        """For a first look."""
        return cls(clips=8, seconds=2.0, speed_runs=1)


def run_photo(
    subject: PhotoSubject,
    tests: Sequence[TestStill],
    reader: PointReader,
    budget: PhotoBudget | None = None,
    *,
    out_dir: Path,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
    movement: Sequence[str] = (),
    speak: Speaker = random_utterance,
    notes: Mapping[str, Any] | None = None,
    progress: Show | None = None,
) -> Report:
    """Measure all parts and write the report to `out_dir`; a stopped run goes on from `out_dir`/work.

    `movement`: channels of head and eyes that the model is told. Raises: ConfigError, MediaError, OutputError,
    DependencyError without espeak-ng.
    """
    budget, show = budget or PhotoBudget(), progress or (lambda *_: None)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ConfigError(f"parts={','.join(unknown)} must be among {','.join(PARTS)}")
    if subject.fps != FPS:
        raise ConfigError(f"fps={subject.fps:g}: puppets have {FPS} frames a second; use a model of {FPS}")
    settings = {"suite": "photo", "seed": seed, "fps": subject.fps, "size": subject.size, **(notes or {})}
    settings |= {"stills": len(tests), "budget": asdict(budget), "lips": "lip_rules"}
    store = Store(out_dir / "work", settings)
    reading, said = dict(size=subject.size, movement=movement, speak=speak), budget.seconds

    def trial(index: int, seconds: float = said) -> PhotoTrial:
        return draw_photo_trial(tests, seed, index, seconds=seconds, **reading)  # type: ignore[arg-type]

    def measure(part: str, index: int) -> ClipResult:
        if part == "photo":
            return measure_photo(subject, trial(index), reader)
        if part == "speed":
            return _speed(subject, trial(0, budget.speed_seconds))
        return _long(subject, trial(0), reader, budget.long_minutes, out_dir / "work" / "long", speak)

    counts = {"photo": budget.clips, "speed": budget.speed_runs, "long": 1 if budget.long_minutes else 0}
    done: dict[str, list[ClipResult]] = {}
    for part in [p for p in PARTS if p in parts and counts[p]]:
        done[part] = []
        for index in range(counts[part]):
            result, kept = store.get(f"{part}_{index:03d}", lambda p=part, i=index: measure(p, i))  # type: ignore[misc]
            done[part].append(result)
            show(part, index + 1, counts[part], result, kept)
    add_photo_controls(done.get("photo", []))
    metrics: dict[str, Interval] = {}
    for results in done.values():
        metrics |= summarise([r.metrics for r in results])
    for result in done.get("long", []):
        a_minute = 60 * subject.fps / subject.clip_frames
        metrics |= {f"slope a minute: {n}": trend(result.curves[n], per=a_minute) for n in SLOPES}
    settings["threads"] = torch.get_num_threads()
    report = Report(settings, metrics, done, photo_rows(metrics, done))
    report.save(out_dir)
    return report


def add_photo_controls(results: Sequence[ClipResult]) -> None:
    """Add to each clip how well its mouth fits the jaw of another sentence: what chance gives."""
    for i, result in enumerate(results):
        other = results[(i + 1) % len(results)].curves["jaw and width"][:, 0]
        opening = result.curves["read generated"][:, 0]
        known = np.isfinite(opening)
        chance = correlation(opening[known], other[known]) if len(results) > 1 else math.nan
        result.metrics["opening against jaw: other sentence"] = chance


def _speed(subject: PhotoSubject, trial: PhotoTrial) -> ClipResult:
    begun = time.perf_counter()
    frames = subject.generate(trial.portrait, trial.waveform, trial.seed)
    return ClipResult({"speed: frames per second": len(frames) / (time.perf_counter() - begun)})


def _long(
    subject: PhotoSubject, trial: PhotoTrial, reader: PointReader, minutes: float, folder: Path, speak: Speaker
) -> ClipResult:
    """One photograph that speaks for minutes: SLOPES once a clip, against its portrait."""
    sound = folder / "speech.wav"
    if not sound.exists():
        said = np.random.default_rng([trial.seed, STREAM, 0, 9])
        speech = speak(said, "held_out", min_seconds=minutes * 60)
        write_wav(sound, speech.waveform[: round(minutes * 60 * SAMPLE_RATE_HZ)])
    sink = _Follower(trial.portrait, reader, round(SHEET_STEP_S * subject.fps))
    subject.stream(trial.portrait, sound, sink, trial.seed, folder / "work")
    rows = np.array(sink.rows)
    curves = {name: rows[:, i] for i, name in enumerate(SLOPES)}
    return ClipResult({}, curves, {"strip": np.concatenate(sink.kept)}, trial.notes())


class _Follower:
    """A FrameSink that measures the first frame of what it is given, a clip at a time, and keeps some pictures."""

    def __init__(self, portrait: Tensor, reader: PointReader, every: int) -> None:
        self._reader, self._every, self._seen = reader, every, 0
        self._colours, self._points = cell_colors(portrait[None])[0], reader(portrait[None])
        self._sharp = float(gradient_energy(portrait[None])[0])
        self.rows: list[list[float]] = []
        self.kept = [thumbnails(portrait[None], TILE)]

    def write(self, frames: Tensor) -> None:
        one = frames[:1]
        colour = float((cell_colors(one)[0] - self._colours).abs().mean())
        shape = float(shape_error(self._reader(one), self._points)[0])
        self.rows.append([colour, shape, float(gradient_energy(one)[0]) / self._sharp])
        if self._seen // self._every != (self._seen + len(frames)) // self._every:
            self.kept.append(thumbnails(one, TILE))
        self._seen += len(frames)

    def close(self, partial: bool = False) -> None:
        if partial:  # Ctrl-C: half a video is no result; the finished clips are in the work folder
            raise KeyboardInterrupt

    def abort(self) -> None:
        self.rows.clear()
