"""Movement that speech does not determine: how much it differs from seed to seed, and life in silence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.synthetic.motion import motion_from_speech
from .face_reader import EYES, FACE, HEAD, face_truth
from .metrics import blinks
from .speech_clip import BLINK, JAW, LOOKS_CLOSED, fit_reader, speak, strip
from .store import ClipResult
from .trials import Subject, Trial, stream

__all__ = ["MOVING", "measure_diversity", "measure_idle", "true_movement", "variance_over_seeds"]

MOVING = EYES + HEAD
DATA_SEEDS = 32  # of the true movement; it costs no drawing
NOISE_FRAMES = 16  # drawn and sent through the autoencoder to see how much of a variance is reading error

Array = NDArray[np.float64]


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
