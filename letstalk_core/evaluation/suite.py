"""Measures a model on people, sentences and voices that it was not trained on (`letstalk evaluate`).

Every trial is a newly drawn person saying a held-out sentence in a held-out voice. The model gets the portrait and
the sound; its frames are compared with the drawing that the same sound gives. The model is reached through
`Subject` only, so anything that makes frames from a portrait and a sound can be measured.

Measured, each as mean over clips with a bootstrap interval:
- lips: correlation of the lips read from the frames (`lips.LipReader`) with the truth, lag, amplitude, how far the
  mouth stays open where it should be closed; controls: the same frames against the speech of another clip, and the
  readings of the drawings themselves and of their autoencoder round trip;
- identity: colour error of pixels that never move, and of coarse cells, against the portrait and its round trip;
- drift: trends of those errors and of sharpness over a clip;
- autoencoder: PSNR of the round trip of whole frames, mouths and eyes, also by skin tone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.synthetic.faces import regions, render
from ..data.synthetic.identity import SKIN_TONES, Identity, sample_identity
from ..data.synthetic.motion import motion_from_speech, neutral_pose
from ..data.synthetic.speech import SAMPLE_RATE_HZ, Utterance
from ..data.synthetic.texts import random_utterance
from ..errors import ConfigError
from .lips import LIPS, LipReader, lip_truth
from .metrics import (
    best_lag,
    cell_colors,
    colour_error,
    correlation,
    gradient_energy,
    psnr,
    psnr_boxes,
    slope,
    static_pixels,
    summarise,
)
from .report import ClipResult, Report

__all__ = ["Subject", "Trial", "draw_trial", "measure_trial", "run_suite"]

STREAM = 7  # of random numbers: neither the training nor the validation people
CLOSED, OPEN = 0.05, 0.5  # true jaw below which a mouth counts as closed, and above which as open
SHEET_FRAMES = 10
GROUPS = ("light", "medium", "dark")


class Subject(Protocol):
    """What is measured."""

    @property
    def fps(self) -> float: ...
    @property
    def size(self) -> int:
        """Height and width of its frames in pixels."""

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int) -> Tensor:
        """Frames (t, size, size, 3) uint8 of a portrait (size, size, 3) uint8 speaking a 16 kHz waveform (s,)."""

    def round_trip(self, frames: Tensor) -> Tensor:
        """Frames (t, size, size, 3) uint8 through the autoencoder and back."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A person who speaks: portrait, sound, true motion and its drawing."""

    identity: Identity
    utterance: Utterance
    portrait_motion: NDArray[np.float32]  # (15,)
    motion: NDArray[np.float32]  # (t, 15)
    portrait: Tensor  # (size, size, 3) uint8
    truth: Tensor  # (t, size, size, 3) uint8
    waveform: Tensor = field(repr=False)  # (s,), exactly t frames long


def draw_trial(seed: int, index: int, *, frames: int, fps: float, size: int) -> Trial:
    """Trial `index` of a test; depends on the arguments alone (sound: see `speech`). Raises: DependencyError."""
    rng = np.random.default_rng([seed, STREAM, index])
    identity = sample_identity(rng)
    utterance = random_utterance(rng, "held_out", min_seconds=frames / fps)
    motion = motion_from_speech(utterance, frames, fps, rng)
    portrait_motion = neutral_pose(rng)
    portrait_motion[:4] = 0.0  # closed mouths make the task the same for everybody
    pictures = render(identity, np.concatenate([portrait_motion[None], motion]), size=size).cpu()
    samples = round(frames / fps * SAMPLE_RATE_HZ)
    waveform = torch.from_numpy(utterance.waveform[:samples].copy())
    waveform = torch.nn.functional.pad(waveform, (0, samples - len(waveform)))
    return Trial(identity, utterance, portrait_motion, motion, pictures[0], pictures[1:], waveform)


def run_suite(
    subject: Subject,
    *,
    clips: int = 24,
    seconds: float = 6.4,
    seed: int = 0,
    poses: int = 160,
    out_dir: Path | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, ClipResult], None] | None = None,
) -> Report:
    """Measure a model; with `out_dir`, also write report.json, report.md, plots and contact sheets there.

    `notes` (JSON values, such as model hashes) go into the report's settings.

    Raises: ConfigError, DependencyError without espeak-ng, OutputError.
    """
    frames = round(seconds * subject.fps)
    if clips < 1 or frames < 8:
        raise ConfigError(f"clips={clips} must be at least 1 and seconds={seconds} at least 8 frames long")
    results: list[ClipResult] = []
    for index in range(clips):
        trial = draw_trial(seed, index, frames=frames, fps=subject.fps, size=subject.size)
        result = measure_trial(subject, trial, seed=seed, index=index, poses=poses)
        results.append(result)
        if progress is not None:
            progress(index + 1, clips, result)
    for i, result in enumerate(results):  # lips against the speech of the next clip: what chance gives
        other = results[(i + 1) % clips].truth
        if clips > 1:
            result.metrics.update(_correlations("control", result.measured, other))
    settings = {"clips": clips, "seconds": seconds, "seed": seed, "fps": subject.fps, "size": subject.size}
    report = Report({**settings, **(notes or {})}, summarise([r.metrics for r in results]), results)
    if out_dir is not None:
        report.save(out_dir)
    return report


def measure_trial(subject: Subject, trial: Trial, *, seed: int, index: int, poses: int = 160) -> ClipResult:
    """Generate one clip and measure it. Raises: ConfigError when the frames have another number or size."""
    reader = LipReader.fit(
        trial.identity,
        trial.portrait_motion,
        np.random.default_rng([seed, STREAM, index, 1]),
        poses=poses,
        size=subject.size,
    )
    generated = subject.generate(trial.portrait, trial.waveform, seed + index).cpu()
    if generated.shape != trial.truth.shape:
        raise ConfigError(f"generated frames have shape {list(generated.shape)}, not {list(trial.truth.shape)}")
    portrait_and_truth = torch.cat([trial.portrait[None], trial.truth])
    decoded = subject.round_trip(portrait_and_truth).cpu()
    wanted, measured = lip_truth(trial.motion), reader.read(generated)
    metrics = _lips(wanted, measured)
    metrics.update(_correlations("drawing", reader.read(trial.truth), wanted))
    metrics.update(_correlations("round trip", reader.read(decoded[1:]), wanted))
    still, series = _identity(trial, generated, decoded, static_pixels(reader.drawings))
    metrics.update(still)
    metrics.update(_autoencoder(trial, decoded))
    rows = torch.linspace(0, len(generated) - 1, min(SHEET_FRAMES, len(generated))).round().long()
    return ClipResult(
        metrics=metrics,
        truth=wanted,
        measured=measured,
        series=series,
        sheet=torch.cat([portrait_and_truth[:1], trial.truth[rows], decoded[:1], generated[rows]]),
        text=trial.utterance.text,
        voice=trial.utterance.voice,
        skin=_skin(trial.identity),
    )


def _skin(identity: Identity) -> str:
    return GROUPS[identity.skin_group * len(GROUPS) // len(SKIN_TONES)]


def _correlations(name: str, measured: NDArray[np.float64], wanted: NDArray[np.float64]) -> dict[str, float]:
    return {f"lips {name}: {lip}": correlation(measured[:, i], wanted[:, i]) for i, lip in enumerate(LIPS)}


def _lips(wanted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, float]:
    found = _correlations("correlation", measured, wanted)
    lag, at_lag = best_lag(measured[:, 0], wanted[:, 0])
    found["lips lag: frames"], found["lips lag: jaw correlation there"] = float(lag), at_lag
    for i, lip in enumerate(LIPS[:3]):
        deviation = float(wanted[:, i].std())
        found[f"lips amplitude: {lip}"] = float(measured[:, i].std()) / deviation if deviation > 1e-6 else math.nan
    jaw, true_jaw = measured[:, 0], wanted[:, 0]
    for name, where in (("closed", true_jaw < CLOSED), ("open", true_jaw > OPEN)):
        found[f"lips jaw where {name}"] = float(jaw[where].mean()) if where.any() else math.nan
    return found


def _identity(
    trial: Trial, generated: Tensor, decoded: Tensor, still: Tensor
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Colour and sharpness of generated frames: means, trends, and the curves themselves."""
    static = colour_error(generated, trial.portrait, still)
    against_decoded = colour_error(generated, decoded[0], still)
    colors = cell_colors(generated)
    cells = (colors - cell_colors(trial.truth)).abs().mean((1, 2, 3)).double().numpy()
    sharpness = gradient_energy(generated) / float(gradient_energy(trial.truth).mean())
    metrics = {
        "identity static error: portrait": float(static.mean()),
        "identity static error: its round trip": float(against_decoded.mean()),
        "identity static error: round trip alone": float(colour_error(decoded[1:], trial.portrait, still).mean()),
        "identity cell error: drawing": float(cells.mean()),
        "identity sharpness: generated": float(sharpness.mean()),
        "identity sharpness: round trip": float(
            gradient_energy(decoded[1:]).mean() / gradient_energy(trial.truth).mean()
        ),
        "drift per 100 frames: static error": slope(static),
        "drift per 100 frames: cell error": slope(cells),
        "drift per 100 frames: sharpness": slope(sharpness),
    }
    return metrics, {"static error": static, "cell error": cells, "sharpness": sharpness}


def _autoencoder(trial: Trial, decoded: Tensor) -> dict[str, float]:
    truth, back = trial.truth, decoded[1:]
    boxes = regions(trial.identity, trial.motion, size=truth.shape[1])
    whole = psnr(truth, back)
    eyes = torch.cat([boxes[:, 1], boxes[:, 2]])
    group = _skin(trial.identity)
    mouth = psnr_boxes(truth, back, boxes[:, 0])
    return {
        "autoencoder PSNR: frame": whole,
        "autoencoder PSNR: mouth": mouth,
        "autoencoder PSNR: eyes": psnr_boxes(truth.repeat(2, 1, 1, 1), back.repeat(2, 1, 1, 1), eyes),
        f"autoencoder PSNR, {group} skin: frame": whole,
        f"autoencoder PSNR, {group} skin: mouth": mouth,
    }
