"""Sound that training did not hold: held-out voices in noise and reverb, and recordings of people.

Noisy voices have true lips. Recordings of people have none: there the jaw is compared with the loudness of the
speech, which the true jaw of computer voices follows only partly (`loudness of truth` says how far).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ..data.synthetic.speech import SAMPLE_RATE_HZ
from ..data.synthetic.visemes import loudness
from .face_reader import face_truth
from .metrics import best_lag, correlation, pauses
from .speech_clip import JAW, closed_in, fit_reader, lip_metrics, speak, strip
from .store import ClipResult
from .trials import Subject, Trial, stream

__all__ = ["disturbed", "measure_noisy", "measure_recording"]

NOISE_DB = (10.0, 20.0)  # speech above noise
REVERB_SECONDS = (0.15, 0.45)  # until the echo is 60 dB down
ECHO_SHARE = (0.2, 0.5)  # of the echo's energy in the direct sound's
QUIET = 0.06  # loudness (0..1) below which a recording pauses
LAG_FRAMES = 2

Array = NDArray[np.float64]


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
