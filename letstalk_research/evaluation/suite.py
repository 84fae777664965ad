"""Measures a model on drawn people, sentences and voices that it was not trained on (`letstalk evaluate`).

Every trial is a newly drawn person saying a held-out sentence in a held-out voice. The model gets the portrait and
the sound; its frames are compared with the drawing that the same sound gives. The model is reached through
`Subject` only, so anything that makes frames from a portrait and a sound can be measured. `demo_suite` adds tests
of long videos, silence, other sound and several seeds.

Everything read from generated frames is also read from the drawing itself and from the drawing's round trip
through the autoencoder (the best that a perfect denoiser could reach), and lips are also compared with the speech
of another clip (what chance gives). Each is reported as mean over clips with a bootstrap interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError

from ..data.synthetic.faces import regions
from ..data.synthetic.identity import SKIN_TONES
from .face_reader import FACE, HEAD, LIPS, FaceReader, agreement, face_truth
from .intervals import summarise
from .metrics import (
    Array,
    best_lag,
    blinks,
    calm_cells,
    cell_colors,
    colour_error,
    correlation,
    gradient_energy,
    pauses,
    psnr,
    psnr_boxes,
    slope,
    static_pixels,
)
from .pictures import spread, thumbnails
from .report import Report
from .store import ClipResult, Progress, Store
from .trials import Subject, Trial, draw_trial, stream

LEAST_FRAMES = 8
CLOSED, OPEN = 0.05, 0.5  # true jaw below which a mouth counts as closed, and above which as open
LOOKS_CLOSED = 0.15  # jaw as read: below it nobody sees an opening
SHEET_FRAMES = 10
SKINS = {0: "lightest skin", len(SKIN_TONES) - 1: "darkest skin"}
JAW, BLINK = FACE.index("jaw"), FACE.index("blink")


def run_suite(
    subject: Subject,
    *,
    clips: int = 24,
    seconds: float = 6.4,
    seed: int = 0,
    poses: int = 240,
    out_dir: Path | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a model; with `out_dir`, also write report.json, report.md, plots and contact sheets there.

    `notes` (JSON values, such as model hashes) go into the report's settings.

    Raises: ConfigError, DependencyError without espeak-ng, OutputError.
    """
    frames = round(seconds * subject.fps)
    if clips < 1 or frames < LEAST_FRAMES:
        raise ConfigError(
            f"clips={clips} must be at least 1 and seconds={seconds} at least {LEAST_FRAMES} frames long"
        )

    def measure(index: int) -> ClipResult:
        trial = draw_trial(seed, index, frames=frames, fps=subject.fps, size=subject.size)
        return measure_trial(subject, trial, poses=poses)

    results = Store(None, {}).each("speech", clips, measure, progress)
    add_controls(results)
    settings = {"clips": clips, "seconds": seconds, "seed": seed, "fps": subject.fps, "size": subject.size}
    metrics = summarise([r.metrics for r in results])
    report = Report({**settings, **(notes or {})}, metrics, {"speech": results})
    if out_dir is not None:
        report.save(out_dir)
    return report


def add_controls(results: list[ClipResult]) -> None:
    """Add to each clip how well its lips fit the speech of the next one: what chance gives."""
    for i, result in enumerate(results):
        other = results[(i + 1) % len(results)].curves["truth"]
        if len(results) > 1:
            measured = result.curves["measured"]
            for k, lip in enumerate(LIPS):
                result.metrics[f"lips control: {lip}"] = correlation(measured[:, k], other[:, k])


def fit_reader(trial: Trial, poses: int) -> FaceReader:
    """The reader of a trial's person."""
    rng = stream(trial.seed, trial.index, "reader")
    return FaceReader.fit(trial.identity, trial.portrait_motion, rng, poses=poses, size=trial.portrait.shape[0])


def speak(subject: Subject, trial: Trial, *, shift: int = 0, steps: int | None = None) -> Tensor:
    """Generated frames of a trial; `shift` chooses other noise. Raises: ConfigError for another number or size."""
    frames = subject.generate(trial.portrait, trial.waveform, trial.seed + trial.index + 1000 * shift, steps).cpu()
    wanted = (len(trial.motion), *trial.portrait.shape)
    if tuple(frames.shape) != wanted:
        raise ConfigError(f"generated frames have shape {list(frames.shape)}, not {list(wanted)}")
    return frames


def strip(trial: Trial, frames: Tensor) -> NDArray[np.uint8]:
    """The portrait and some frames in time order, small."""
    return thumbnails(torch.cat([trial.portrait[None], frames[spread(len(frames), SHEET_FRAMES)]]))


def measure_trial(subject: Subject, trial: Trial, *, poses: int = 240) -> ClipResult:
    """Generate one clip and measure it. Raises: ConfigError when the frames have another number or size."""
    reader = fit_reader(trial, poses)
    generated, drawing = speak(subject, trial), trial.drawing()
    decoded = subject.round_trip(torch.cat([trial.portrait[None], drawing])).cpu()
    wanted, measured = face_truth(trial.motion), reader.read(generated)
    from_decoded = reader.read(decoded[1:])
    metrics = lip_metrics(measured, wanted)
    for name, read in (("drawing", reader.read(drawing)), ("round trip", from_decoded)):
        metrics |= {f"reading {name}: {part}": value for part, value in agreement(read, wanted).items()}
    quiet = pauses(trial.silent(subject.fps), subject.fps)
    metrics |= closed_in(quiet, measured[:, JAW]) | closed_in(quiet, from_decoded[:, JAW], "pauses round trip")
    minutes = len(generated) / subject.fps / 60
    for name, read in (("generated", measured), ("round trip", from_decoded), ("truth", wanted)):
        metrics[f"eyes blinks per minute: {name}"] = blinks(read[:, BLINK]) / minutes
    for i, name in enumerate(HEAD, FACE.index(HEAD[0])):
        metrics[f"head amplitude: {name}"] = float(measured[:, i].std() / wanted[:, i].std())
    errors, series = _identity(trial, reader, generated, decoded, drawing)
    metrics |= errors | _autoencoder(trial, drawing, decoded[1:])
    rows = spread(len(generated), SHEET_FRAMES)
    sheet = thumbnails(torch.cat([trial.portrait[None], drawing[rows], decoded[:1], generated[rows]]))
    curves = {"truth": wanted, "measured": measured} | {f"series {k}": v for k, v in series.items()}
    return ClipResult(metrics, curves, {"sheet": sheet}, trial.notes())


def looks(reader: FaceReader, calm: Tensor, portrait: Tensor, frames: Tensor) -> tuple[Array, Array, Array]:
    """How each frame looks (t,): colour error in the cells `calm`, error of the face's shape, sharpness."""
    colour = colour_error(cell_colors(frames), cell_colors(portrait[None])[0], calm)
    return colour, reader.landmark_error(frames), gradient_energy(frames)


def lip_metrics(measured: Array, wanted: Array, name: str = "lips") -> dict[str, float]:
    """Agreement of read lips with the truth: columns FACE (t, 11) each."""
    found = {f"{name} correlation: {lip}": correlation(measured[:, i], wanted[:, i]) for i, lip in enumerate(LIPS)}
    lag, at_lag = best_lag(measured[:, JAW], wanted[:, JAW])
    found[f"{name} lag: frames"], found[f"{name} lag: jaw correlation there"] = float(lag), at_lag
    for i, lip in enumerate(LIPS[:3]):
        deviation = float(wanted[:, i].std())
        found[f"{name} amplitude: {lip}"] = (
            float(measured[:, i].std()) / deviation if deviation > 1e-6 else math.nan
        )
    jaw, true_jaw = measured[:, JAW], wanted[:, JAW]
    for state, where in (("closed", true_jaw < CLOSED), ("open", true_jaw > OPEN)):
        found[f"{name} jaw where {state}"] = float(jaw[where].mean()) if where.any() else math.nan
    return found


def closed_in(quiet: NDArray[np.bool_], jaw: Array, name: str = "pauses") -> dict[str, float]:
    """The jaw (t,) in quiet frames (t,): mean opening, and share of frames that look closed; NaN without any."""
    if not quiet.any():
        return {f"{name}: jaw": math.nan, f"{name}: closed": math.nan}
    return {f"{name}: jaw": float(jaw[quiet].mean()), f"{name}: closed": float((jaw[quiet] < LOOKS_CLOSED).mean())}


def _identity(
    trial: Trial, reader: FaceReader, generated: Tensor, decoded: Tensor, drawing: Tensor
) -> tuple[dict[str, float], dict[str, Array]]:
    """Colour, shape and sharpness of generated frames: means, trends, and the curves themselves."""
    still, calm = static_pixels(reader.drawings), calm_cells(reader.drawings)
    decoded = decoded[1:]
    made, again, drawn = (looks(reader, calm, trial.portrait, frames) for frames in (generated, decoded, drawing))
    unit = float(drawn[2].mean())
    series = {"colour error": made[0], "landmark error": made[1], "sharpness": made[2] / unit}
    metrics = {f"identity {name}: generated": float(values.mean()) for name, values in series.items()}
    for i, name in enumerate(("colour error", "landmark error")):
        metrics[f"identity {name}: round trip"] = float(again[i].mean())
        metrics[f"identity {name}: drawing"] = float(drawn[i].mean())
    metrics["identity sharpness: round trip"] = float(again[2].mean()) / unit
    for name, frames in (("generated", generated), ("round trip", decoded)):
        metrics[f"identity static pixels: {name}"] = float(colour_error(frames, trial.portrait, still).mean())
    metrics |= {f"drift per 100 frames: {name}": slope(values) for name, values in series.items()}
    return metrics, series


def _autoencoder(trial: Trial, drawing: Tensor, decoded: Tensor) -> dict[str, float]:
    boxes = regions(trial.identity, trial.motion, size=drawing.shape[1])
    both = torch.cat([boxes[:, 1], boxes[:, 2]])
    found = {
        "frame": psnr(drawing, decoded),
        "mouth": psnr_boxes(drawing, decoded, boxes[:, 0]),
        "eyes": psnr_boxes(drawing.repeat(2, 1, 1, 1), decoded.repeat(2, 1, 1, 1), both),
    }
    metrics = {f"autoencoder PSNR: {name}": value for name, value in found.items()}
    skin = SKINS.get(trial.identity.skin_group)
    return metrics | ({f"autoencoder PSNR, {skin}: {name}": v for name, v in found.items()} if skin else {})
