"""The measurement of one photograph that speaks: lips, closures, picture quality, identity, steadiness, life.

All that is read from generated frames is read from the puppet, too: what the reading itself can reach.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.networks.face_points import OVAL
from letstalk_core.networks.motion_channels import MOTION

from ..data.synthetic.dataset import FPS
from .face_curves import CURVES, PointReader, bridged, face_curves, shape_error
from .lids import LidReader
from .metrics import best_lag, blinks, cell_colors, correlation, pauses, psnr, psnr_boxes
from .photo_trials import PhotoTrial
from .pictures import spread, thumbnails
from .store import ClipResult
from .trials import Subject

CLOSED = 0.03  # opening in eye distances below which lips are closed
LABIALS = ("m", "b", "p")
NEAR_S = 0.06  # around a sound, within which the lips must have closed
SHEET_FRAMES = 10
LARGE_POSE = 0.75  # quantile of the turn of the head, above which poses count as large

Array = NDArray[np.float64]
OPENING, WIDTH = CURVES.index("opening"), CURVES.index("width")


class PhotoSubject(Subject, Protocol):
    """A model that may carry the portrait's own detail along."""

    def carried(self, portrait: Tensor, frames: Tensor) -> Tensor | None:
        """Frames (t, s, s, 3) uint8 through the autoencoder with the detail of a portrait; None without masks."""


def measure_photo(subject: PhotoSubject, trial: PhotoTrial, reader: PointReader) -> ClipResult:
    """Generate one clip and measure it. Raises: ConfigError for frames of another number or size."""
    made = subject.generate(trial.portrait, trial.waveform, trial.seed).cpu()
    if made.shape != trial.frames.shape:
        raise ConfigError(f"generated frames have shape {list(made.shape)}, not {list(trial.frames.shape)}")
    plain = subject.round_trip(trial.frames).cpu()
    carried = subject.carried(trial.portrait, trial.frames)
    decoded = plain if carried is None else carried.cpu()
    points = {"generated": reader(made), "puppet": reader(trial.frames), "decoded": reader(decoded)}
    curves = {name: face_curves(p) for name, p in points.items()}
    truth = np.stack([_column(trial, "jaw"), _column(trial, "wide") - _column(trial, "round")], 1)
    metrics = {"faces found": float(np.isfinite(points["generated"][:, 0, 0]).mean())}
    for name in ("generated", "puppet"):
        metrics |= _lips(trial, curves[name], truth, name)
    quality = {"plain": plain} if carried is None else {"plain": plain, "carried": decoded}
    for name, frames in quality.items():
        metrics |= _quality(trial, frames, name)
    metrics["generated PSNR: frame"] = psnr(made, trial.frames)
    metrics["generated PSNR: mouth"] = psnr_boxes(made, trial.frames, trial.boxes[:, 0])
    for name, frames in (("generated", made), ("decoded", decoded)):
        metrics[f"identity shape: {name}"] = _mean(shape_error(points[name], trial.points))
        apart = (cell_colors(frames) - cell_colors(trial.frames)).abs().mean()
        metrics[f"identity colour: {name}"] = float(apart)
    metrics |= _steadiness(trial, made, decoded) | _life(trial, curves, made)
    for group in trial.test.groups:
        for name in ("opening against jaw: generated", "generated PSNR: frame", "identity shape: generated"):
            metrics[f"{name}, {group}"] = metrics[name]
    rows = spread(len(made), SHEET_FRAMES)
    sheet = torch.cat([trial.portrait[None], trial.frames[rows], decoded[:1], made[rows]])
    kept = {f"read {name}": curves[name] for name in ("generated", "puppet")} | {"jaw and width": truth}
    return ClipResult(metrics, kept, {"sheet": thumbnails(sheet)}, trial.notes())


def _column(trial: PhotoTrial, name: str) -> Array:
    return trial.motion[:, MOTION.index(name)].astype(np.float64)


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _lips(trial: PhotoTrial, read: Array, truth: Array, name: str) -> dict[str, float]:
    opening, width = bridged(read[:, OPENING]), bridged(read[:, WIDTH])
    lag, at_lag = best_lag(opening, truth[:, 0])
    found = {
        f"opening against jaw: {name}": correlation(opening, truth[:, 0]),
        f"opening against jaw at the best lag: {name}": at_lag,
        f"lag in frames: {name}": float(lag),
        f"width against wide - round: {name}": correlation(width, truth[:, 1]),
    }
    seconds = (np.arange(len(opening)) + 0.5) / FPS
    closed = []
    for start, end in trial.spans(LABIALS):
        near = (seconds >= start - NEAR_S) & (seconds <= end + NEAR_S)
        if near.any():
            closed.append(float(opening[near].min() < CLOSED))
    found[f"closed on m, b, p: {name}"] = float(np.mean(closed)) if closed else math.nan
    quiet = pauses(trial.silent(), FPS)
    found[f"closed in pauses: {name}"] = float((opening[quiet] < CLOSED).mean()) if quiet.any() else math.nan
    return found


def _quality(trial: PhotoTrial, frames: Tensor, name: str) -> dict[str, float]:
    turned = np.hypot(_column(trial, "yaw"), _column(trial, "pitch"))
    large = torch.from_numpy(turned >= np.quantile(turned, LARGE_POSE))
    found = {}
    for pose, chosen in (("", torch.ones(len(frames), dtype=torch.bool)), (", large poses", large)):
        ours, theirs, boxes = frames[chosen], trial.frames[chosen], trial.boxes[chosen]
        twice = torch.cat([boxes[:, 1], boxes[:, 2]])
        found[f"{name} PSNR{pose}: frame"] = psnr(ours, theirs)
        found[f"{name} PSNR{pose}: mouth"] = psnr_boxes(ours, theirs, boxes[:, 0])
        found[f"{name} PSNR{pose}: eyes"] = psnr_boxes(ours.repeat(2, 1, 1, 1), theirs.repeat(2, 1, 1, 1), twice)
    return found


def _steadiness(trial: PhotoTrial, made: Tensor, decoded: Tensor) -> dict[str, float]:
    """Differences of neighbouring frames outside of the face: hair, clothes, background."""
    size = made.shape[1]
    oval = trial.points[:, list(OVAL)]
    low, high = oval.min((0, 1)).astype(int).clip(0, size), oval.max((0, 1)).astype(int).clip(0, size)
    outside = torch.ones(size, size, dtype=torch.bool)
    outside[low[1] : high[1] + 1, low[0] : high[0] + 1] = False
    steps = {
        name: frames[:, outside].float().diff(dim=0)
        for name, frames in (("generated", made), ("decoded", decoded), ("puppet", trial.frames))
    }
    found = {f"flicker: {name}": float(step.abs().mean()) for name, step in steps.items()}
    for name in ("generated", "decoded"):
        found[f"flicker error: {name}"] = float((steps[name] - steps["puppet"]).abs().mean())
    return found


def _life(trial: PhotoTrial, curves: dict[str, Array], made: Tensor) -> dict[str, float]:
    minutes, asked = len(trial.motion) / FPS / 60, _column(trial, "blink")
    found = {"blinks a minute: asked": blinks(asked) / minutes}
    lids = LidReader(trial.frames, trial.points, asked)
    for name, frames in (("generated", made), ("puppet", trial.frames)):
        read = curves[name]
        found[f"blinks a minute: {name}"] = blinks(lids(frames)) / minutes if lids.known else math.nan
        for turn in ("yaw", "pitch", "roll"):
            known = read[:, CURVES.index(turn)]
            known = known[np.isfinite(known)]
            found[f"head {turn}: {name}"] = float(known.std()) if len(known) else math.nan
    return found
