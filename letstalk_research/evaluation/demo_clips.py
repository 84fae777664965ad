"""What the demo suite measures beside plain speech: hard sound, liveliness, one very long video.

Hard sound are held-out voices in noise and reverb, whose true lips are known, and recordings of people. These have
none: there the jaw is compared with the loudness of the speech, which the true jaw of computer voices follows only
partly. Liveliness is movement that speech does not determine, from seed to seed and in silence. In the long video
the person must stay the same, and the picture as sharp; its frames are measured as they come and thrown away, so
memory grows by a dozen numbers a frame.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.files import atomic_path
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ

from ..data.synthetic.motion import motion_from_speech
from ..data.synthetic.speech import write_wav
from ..data.synthetic.texts import random_utterance
from ..data.synthetic.visemes import loudness
from .face_reader import EYES, FACE, HEAD, LIPS, FaceReader, face_truth
from .intervals import Interval, ratio, trend
from .metrics import Array, best_lag, blinks, calm_cells, correlation, pauses
from .pictures import thumbnails
from .store import ClipResult
from .suite import BLINK, JAW, LOOKS_CLOSED, closed_in, fit_reader, lip_metrics, looks, speak, strip
from .trials import Subject, Trial, stream

NOISE_DB = (10.0, 20.0)  # speech above noise
REVERB_SECONDS = (0.15, 0.45)  # until the echo is 60 dB down
ECHO_SHARE = (0.2, 0.5)  # of the echo's energy in the direct sound's
QUIET = 0.06  # loudness (0..1) below which a recording pauses
LAG_FRAMES = 2

MOVING = EYES + HEAD
DATA_SEEDS = 32  # of the true movement; it costs no drawing
NOISE_FRAMES = 16  # drawn and sent through the autoencoder to see how much of a variance is reading error
SERIES = ("colour error", "landmark error", "sharpness")
TILE = 192  # pixels of the frames that are kept for contact sheets
SHEETS = ("minute", "long")
MINUTE_STEP_S, LONG_STEP_S = 5, 60  # seconds between frames of the two contact sheets
SETTLING_S = 10  # in which frames may move away from the portrait
BLOCK_S = 6  # a minute is compared with another in blocks of this length


def disturbed(waveform: Tensor, rng: Generator) -> Tensor:
    """The sound (s,) in a room with noise; its timing stays. Echo: decaying noise. Noise: falling with pitch."""
    samples = len(waveform)
    t = np.arange(int(0.5 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = rng.normal(size=len(t)) * 10 ** (-3 * t / rng.uniform(*REVERB_SECONDS)) * (t > 0.004)
    tail *= np.sqrt(rng.uniform(*ECHO_SHARE) / np.square(tail).sum())
    tail[0] = 1.0
    size = samples + len(t)
    y = np.fft.irfft(np.fft.rfft(waveform.numpy(), size) * np.fft.rfft(tail, size), size)[:samples]
    shape = 1 / np.sqrt(1 + np.arange(samples // 2 + 1) * (SAMPLE_RATE_HZ / samples) / 200)
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=samples)) * shape, samples)
    level = np.sqrt(np.square(y).mean() / (np.square(noise).mean() + 1e-12))
    y = y + noise * level * 10 ** (-rng.uniform(*NOISE_DB) / 20)
    return torch.from_numpy((y / max(1.0, np.abs(y).max() / 0.99)).astype(np.float32))


def measure_noisy(subject: Subject, trial: Trial, *, poses: int) -> ClipResult:
    """A trial whose sound was disturbed; the truth is that of the clean sound."""
    reader = fit_reader(trial, poses)
    sound = disturbed(trial.waveform, stream(trial.seed, trial.index, "noise"))
    measured, wanted = reader.read(speak(subject, replace(trial, waveform=sound))), face_truth(trial.motion)
    metrics = lip_metrics(measured, wanted, "noisy lips")
    metrics |= closed_in(pauses(trial.silent(subject.fps), subject.fps), measured[:, JAW], "noisy pauses")
    loud = _loudness(trial.waveform, subject.fps, len(measured))
    metrics["noisy jaw and loudness: generated"] = best_lag(measured[:, JAW], loud, LAG_FRAMES)[1]
    metrics["noisy jaw and loudness: truth"] = best_lag(wanted[:, JAW], loud, LAG_FRAMES)[1]
    return ClipResult(metrics, {"truth": wanted, "measured": measured}, notes=trial.notes())


def measure_recording(subject: Subject, trial: Trial, name: str, *, poses: int) -> ClipResult:
    """A drawn person with the recording of a real one in `trial.waveform`; the trial's utterance is not used."""
    reader = fit_reader(trial, poses)
    frames = speak(subject, trial)
    jaw = reader.read(frames)[:, JAW]
    loud = _loudness(trial.waveform, subject.fps, len(jaw))
    lag, following = best_lag(jaw, loud, LAG_FRAMES)
    metrics = {
        "recording jaw and loudness: generated": following,
        "recording jaw and loudness: lag": float(lag),
        "recording jaw and loudness: control": correlation(jaw, np.roll(loud, len(loud) // 2)),
        "recording jaw: deviation": float(jaw.std()),
    }
    metrics |= closed_in(pauses(loud < QUIET, subject.fps), jaw, "recording pauses")
    return ClipResult(
        metrics, {"jaw": jaw, "loudness": loud}, {"strip": strip(trial, frames)}, {"recording": name}
    )


def _loudness(waveform: Tensor, fps: float, frames: int) -> Array:
    """Loudness (t,) at the middle of each frame, smoothed over three frames, as jaws are."""
    centres = np.asarray((np.arange(frames) + 0.5) / fps, np.float64)
    curve = loudness(waveform.numpy(), centres).astype(np.float64)
    return np.convolve(np.pad(curve, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")


def measure_diversity(subject: Subject, trial: Trial, *, seeds: int, poses: int) -> ClipResult:
    """One person and speech with several seeds: variance over the seeds at each frame, mean over frames.

    Metrics, for each of MOVING: the variance of generated frames, of the data (true movement drawn anew), and what
    errors of reading would add (from the round trip of drawn frames).
    """
    reader = fit_reader(trial, poses)
    runs = np.stack([reader.read(speak(subject, trial, shift=k)) for k in range(seeds)])
    data = true_movement(trial, subject.fps, DATA_SEEDS)
    some = np.linspace(0, len(trial.motion) - 1, min(NOISE_FRAMES, len(trial.motion))).round().astype(int)
    decoded = subject.round_trip(trial.drawing(some.tolist())).cpu()
    noise = reader.read(decoded) - face_truth(trial.motion[some])
    metrics: dict[str, float] = {}
    for name in MOVING:
        i = FACE.index(name)
        metrics[f"diversity variance, generated: {name}"] = variance_over_seeds(runs[:, :, i])
        metrics[f"diversity variance, data: {name}"] = variance_over_seeds(data[:, :, i])
        metrics[f"diversity variance, reading: {name}"] = float(noise[:, i].var())
    return ClipResult(metrics, {f"run {k}": r for k, r in enumerate(runs)}, notes=trial.notes())


def measure_idle(subject: Subject, trial: Trial, *, poses: int) -> ClipResult:
    """Silence: blinks, how much the head moves against the data, and whether the mouth stays closed."""
    reader = fit_reader(trial, poses)
    frames = speak(subject, trial)
    measured = reader.read(frames)
    data = true_movement(trial, subject.fps, DATA_SEEDS)
    minutes = len(frames) / subject.fps / 60
    count = blinks(measured[:, BLINK])
    metrics = {
        "idle blinks per minute: generated": count / minutes,
        "idle blinks per minute: data": float(np.mean([blinks(d[:, BLINK]) for d in data])) / minutes,
        "idle blinked at all": float(count > 0),
        "idle mouth: closed": float((measured[:, JAW] < LOOKS_CLOSED).mean()),
        "idle mouth: widest jaw": float(measured[:, JAW].max()),
    }
    for name in HEAD:
        i = FACE.index(name)
        metrics[f"idle movement, generated: {name}"] = float(measured[:, i].std())
        metrics[f"idle movement, data: {name}"] = float(np.mean([d[:, i].std() for d in data]))
    return ClipResult(metrics, {"measured": measured}, {"strip": strip(trial, frames)}, trial.notes())


def true_movement(trial: Trial, fps: float, seeds: int) -> Array:
    """What the person could have done while saying this: columns FACE, (seeds, t, 11)."""
    rng = stream(trial.seed, trial.index, "noise")
    runs = [face_truth(motion_from_speech(trial.utterance, len(trial.motion), fps, rng)) for _ in range(seeds)]
    return np.stack(runs)


def variance_over_seeds(curves: Array) -> float:
    """Variance over runs (seeds, t) at each frame, mean over frames; NaN for a single run."""
    return float(curves.var(0, ddof=1).mean()) if len(curves) > 1 else float("nan")


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
        self._portrait = trial.portrait
        decoded = subject.round_trip(trial.portrait[None]).cpu()
        self._units = {name: max(float(v[0]), 1e-6) for name, v in self._series(decoded).items()}
        self._fps = subject.fps
        self._rows: list[Array] = []
        self._frames = 0
        self._kept: dict[str, list[NDArray[np.uint8]]] = {
            name: [thumbnails(trial.portrait[None], TILE)] for name in SHEETS
        }

    def _series(self, frames: Tensor) -> dict[str, Array]:
        return dict(zip(SERIES, looks(self._reader, self._calm, self._portrait, frames), strict=True))

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
