"""One very long video: does the person stay the same, and the picture as sharp, from the first minute to the last?

Frames are measured as they come and thrown away; memory does not grow with the length, but for a dozen numbers a
frame.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.files import atomic_path

from ..data.synthetic.motion import motion_from_speech
from ..data.synthetic.speech import SAMPLE_RATE_HZ, write_wav
from ..data.synthetic.texts import random_utterance
from .face_reader import FACE, HEAD, LIPS, FaceReader, face_truth
from .intervals import Interval, ratio, trend
from .metrics import blinks, calm_cells, cell_colors, colour_error, correlation, gradient_energy
from .pictures import thumbnails
from .speech_clip import BLINK, fit_reader
from .store import ClipResult
from .trials import Subject, Trial, stream

__all__ = ["SERIES", "drift_trends", "measure_drift"]

SERIES = ("colour error", "landmark error", "sharpness")
TILE = 192  # pixels of the frames that are kept for contact sheets
SHEETS = ("minute", "long")
MINUTE_STEP_S, LONG_STEP_S = 5, 60  # seconds between frames of the two contact sheets
SETTLING_S = 10  # in which frames may move away from the portrait
BLOCK_S = 6  # a minute is compared with another in blocks of this length

Array = NDArray[np.float64]


def measure_drift(subject: Subject, trial: Trial, *, minutes: float, poses: int, folder: Path) -> ClipResult:
    """Generate `minutes` of one person speaking and follow them.

    `trial` gives person and portrait. `folder` keeps the sound and the finished clips of a stopped run. Curves:
    SERIES, one value for each clip of `subject.clip_frames` frames; the portrait's round trip is 1.
    """
    sound, motion = _speech(trial, minutes, subject.fps, folder)
    reader = fit_reader(trial, poses)
    sink = _Follower(subject, trial, reader)
    subject.stream(trial.portrait, sound, sink, trial.seed + trial.index, folder / "work")
    series, measured = sink.results()
    wanted = face_truth(motion[: len(measured)])
    clip = subject.clip_frames
    per_clip = {f"series {k}": _clip_means(v, clip) for k, v in series.items()}
    metrics = {f"drift level: {k}": float(v.mean()) for k, v in series.items()}
    minute = round(60 * subject.fps)
    for name, part in (("first", slice(None, minute)), ("last", slice(-minute, None))):
        for i, lip in enumerate(LIPS[:3]):
            metrics[f"drift lips, {name} minute: {lip}"] = correlation(measured[part, i], wanted[part, i])
        metrics[f"drift blinks, {name} minute"] = float(blinks(measured[part, BLINK]))
        for head in HEAD:
            i = FACE.index(head)
            metrics[f"drift head amplitude, {name} minute: {head}"] = float(
                measured[part, i].std() / max(wanted[part, i].std(), 1e-9)
            )
    notes = {**trial.notes(), "frames": str(len(measured)), "clips": str(math.ceil(len(measured) / clip))}
    return ClipResult(metrics, per_clip, sink.pictures(), notes)


def drift_trends(result: ClipResult, *, fps: float, clip_frames: int) -> dict[str, Interval]:
    """Change per minute of each of SERIES, also without the first seconds, and the last minute over the first."""
    clips_a_minute = 60 * fps / clip_frames
    found: dict[str, Interval] = {}
    for name in SERIES:
        values = result.curves[f"series {name}"]
        found[f"drift slope per minute: {name}"] = trend(values, per=clips_a_minute)
        settled = values[round(SETTLING_S * fps / clip_frames) :]
        found[f"drift slope per minute, settled: {name}"] = trend(settled, per=clips_a_minute)
        minute, block = min(round(clips_a_minute), len(values) // 2), max(1, round(BLOCK_S * fps / clip_frames))
        first, last = (_clip_means(part, block) for part in (values[:minute], values[len(values) - minute :]))
        if len(first):
            found[f"drift last minute against first: {name}"] = ratio(last, first)
    return found


class _Follower:
    """A FrameSink that measures frames and keeps small copies of some."""

    def __init__(self, subject: Subject, trial: Trial, reader: FaceReader) -> None:
        self._reader, self._calm = reader, calm_cells(reader.drawings)
        self._wanted = cell_colors(trial.portrait[None])[0]
        decoded = subject.round_trip(trial.portrait[None]).cpu()
        self._units = {name: max(float(v[0]), 1e-6) for name, v in self._series(decoded).items()}
        self._fps = subject.fps
        self._rows: list[Array] = []
        self._frames = 0
        self._kept: dict[str, list[NDArray[np.uint8]]] = {
            name: [thumbnails(trial.portrait[None], TILE)] for name in SHEETS
        }

    def _series(self, frames: Tensor) -> dict[str, Array]:
        colour = colour_error(cell_colors(frames), self._wanted, self._calm)
        values = (colour, self._reader.landmark_error(frames), gradient_energy(frames))
        return dict(zip(SERIES, values, strict=True))

    def write(self, frames: Tensor) -> None:
        series = self._series(frames)
        relative = np.stack([series[name] / self._units[name] for name in SERIES], axis=1)
        self._rows.append(np.concatenate([relative, self._reader.read(frames)], axis=1))
        for i, frame in enumerate(frames, self._frames):
            if i % round(MINUTE_STEP_S * self._fps) == 0 and i <= 60 * self._fps:
                self._kept["minute"].append(thumbnails(frame[None], TILE))
            if i % round(LONG_STEP_S * self._fps) == 0:
                self._kept["long"].append(thumbnails(frame[None], TILE))
        self._frames += len(frames)
        self._last = frames[-1]

    def close(self, partial: bool = False) -> None:
        if partial:  # Ctrl-C: half a video is no result; the finished clips are in the work folder
            raise KeyboardInterrupt
        self._kept["long"].append(thumbnails(self._last[None], TILE))

    def abort(self) -> None:
        self._rows.clear()

    def results(self) -> tuple[dict[str, Array], Array]:
        rows = np.concatenate(self._rows)
        return {name: rows[:, i] for i, name in enumerate(SERIES)}, rows[:, len(SERIES) :]

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        return {name: np.concatenate(frames) for name, frames in self._kept.items()}


def _speech(trial: Trial, minutes: float, fps: float, folder: Path) -> tuple[Path, NDArray[np.float32]]:
    """The sound as a file, and its true motion. Made once: espeak-ng's sound does not repeat bit for bit."""
    sound, moves = folder / "speech.wav", folder / "motion.npy"
    if not moves.exists():
        frames = round(minutes * 60 * fps)
        speech = random_utterance(stream(trial.seed, trial.index, "speech"), "held_out", min_seconds=frames / fps)
        samples = round(frames / fps * SAMPLE_RATE_HZ)
        motion = motion_from_speech(speech, frames, fps, stream(trial.seed, trial.index, "motion"))
        write_wav(sound, speech.waveform[:samples])
        with atomic_path(moves) as temporary, temporary.open("wb") as file:
            np.save(file, motion)
    return sound, np.load(moves, allow_pickle=False)


def _clip_means(values: Array, size: int) -> Array:
    """Means of neighbouring `size` values; the last may be of fewer."""
    firsts = np.arange(0, len(values), size)
    return np.asarray(np.add.reduceat(values, firsts) / np.diff(np.append(firsts, len(values))))
