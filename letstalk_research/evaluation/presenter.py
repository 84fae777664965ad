"""How well a model speaks as one filmed person: held-out sentences, by the model before and after it learned them.

One portrait of the person speaks the sound of held-out clips; lips read from generated frames are compared with
the filmed ones, and with those of another sentence, which is chance. Sharpness and identity are measured against
the decode of the film itself, the best that the autoencoder lets a denoiser reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.sampling.motion import Movement

from ..data.clips import open_clip
from ..data.manifest import Manifest
from .face_curves import CURVES, PointReader, bridged, face_curves, shape_error
from .intervals import NOTHING, Interval, summarise
from .metrics import Array, best_lag, correlation, gradient_energy, psnr, psnr_boxes
from .pictures import spread, thumbnails
from .report import Report, Row
from .store import ClipResult, Progress, Store
from .trials import Subject

BEFORE, AFTER = "before", "after"
COMPARED = ("opening", "width")
SHEET_FRAMES = 10
FEWEST = 20  # frames of a clip worth comparing
LIDS = CURVES.index("lids")
MORE = "more than before"
AIMS = (  # row, metric, reach
    ("mouth opening: generated against filmed", "opening: same sentence", ">= 0.75"),
    ("mouth opening: margin over another sentence", "opening: margin", ">= 0.35"),
    ("mouth opening: lag in frames", "opening: lag in frames", "0 +- 1"),
    ("mouth opening: amplitude to the film's", "opening: amplitude", "0.8 .. 1.2"),
    ("mouth width: generated against filmed", "width: same sentence", ">= 0.4"),
    ("lids in blinks (1 shut)", "lids in blinks", ">= 0.5"),
    *((f"{name} to the decoded film's",) * 2 + ("1 / 1.2 .. 1.2",) for name in ("sharpness", "shape")),
)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A clip that nothing was trained on: frames (t, h, w, 3) uint8, regions (t, 3, 4), sound (samples,)."""

    name: str
    frames: Tensor
    regions: Tensor
    waveform: Tensor


def held_out_clips(folder: Path, most: int, seconds: float) -> list[HeldOut]:
    """Up to `most` clips of the validation split of a training folder, evenly spread. Raises: MediaError."""
    records = [r for r in Manifest(folder).select("val") if r.frames >= FEWEST]
    if not records:
        raise MediaError(f"{folder}: has no held-out clip of at least {FEWEST} frames; give a longer video")
    found = []
    for index in spread(len(records), most):
        clip = open_clip(folder, records[index])
        count = min(clip.frame_count, round(seconds * 25))
        sound = clip.audio()[640 * clip.lead_frames :][: 640 * count]
        found.append(HeldOut(records[index].id, clip.frames(0, count), clip.regions(0, count), sound))
    return found


def run_presenter(
    subjects: Mapping[str, tuple[Subject, Sequence[str]]],
    portrait: Tensor,
    clips: Sequence[HeldOut],
    reader: PointReader,
    *,
    out_dir: Path,
    seed: int = 0,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure and write the report; a stopped run goes on. portrait: (h, w, 3) uint8.

    `subjects`: "before" and "after", each with the channels of movement it is told. Raises: ConfigError,
    MediaError, OutputError.
    """
    settings = {"suite": "presenter", "seed": seed, "clips": [c.name for c in clips], **(notes or {})}

    def measure(i: int) -> ClipResult:
        return _measure(subjects, portrait, clips[i], reader, seed + i)

    results = Store(out_dir / "work", settings).each("clip", len(clips), measure, progress)
    for i, result in enumerate(results):
        other = results[(i + 1) % len(results)].curves["filmed"] if len(results) > 1 else None
        for name in subjects:
            _compare(result, name, other)
    metrics = summarise([r.metrics for r in results])
    report = Report(settings, metrics, {"clip": results}, presenter_rows(metrics))
    report.save(out_dir)
    return report


def _measure(
    subjects: Mapping[str, tuple[Subject, Sequence[str]]],
    portrait: Tensor,
    clip: HeldOut,
    reader: PointReader,
    seed: int,
) -> ClipResult:
    own = reader(portrait[None])
    result = ClipResult({}, {"filmed": face_curves(reader(clip.frames))})
    rows = spread(len(clip.frames), SHEET_FRAMES)
    sheet = [portrait[None], clip.frames[rows]]
    for name, (subject, movement) in subjects.items():
        made = subject.generate(portrait, clip.waveform, seed).cpu()[: len(clip.frames)]
        decoded = subject.round_trip(clip.frames[: len(made)])
        points = reader(made)
        result.curves[name] = face_curves(points)
        truth = clip.frames[: len(made)]
        regions = clip.regions[: len(made)]
        eyes = [psnr_boxes(decoded, truth, regions[:, k]) for k in (1, 2)]
        shape = _median(shape_error(points, own.repeat(len(made), 0)))
        usual = _median(shape_error(reader(decoded), own.repeat(len(made), 0)))
        result.metrics |= {
            f"{name}: decode, dB: frame": psnr(decoded, truth),
            f"{name}: decode, dB: mouth": psnr_boxes(decoded, truth, regions[:, 0]),
            f"{name}: decode, dB: eyes": sum(eyes) / 2,
            f"{name}: sharpness to the decoded film's": float(
                gradient_energy(made).mean() / gradient_energy(decoded).mean()
            ),
            f"{name}: shape to the decoded film's": shape / max(usual, 1e-9),
            f"{name}: lids in blinks": _shut(result.curves[name][:, LIDS], movement, seed, subject.fps),
        }
        sheet += [portrait[None], made[rows]]
    result.pictures["films"] = thumbnails(torch.cat(sheet))
    return result


def _shut(lids: Array, movement: Sequence[str], seed: int, fps: float) -> float:
    """How far lids are shut, as landmarks see it, where the network was told that they are; NaN without blinks."""
    if "blink" not in movement:
        return math.nan
    told = Movement(movement, seed=seed, fps=fps).rows(0, len(lids))[:, list(movement).index("blink")].numpy()
    return _median(lids[told > 0.95])


def _median(values: Array) -> float:
    """Of those that are known; NaN without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _compare(result: ClipResult, name: str, other: Array | None) -> None:
    """Generated lips with the filmed ones and with those of another sentence."""
    for curve in COMPARED:
        column = CURVES.index(curve)
        ours, theirs = (bridged(result.curves[k][:, column]) for k in (name, "filmed"))
        count = min(len(ours), len(theirs))
        ours, theirs = ours[:count], theirs[:count]
        same = correlation(ours, theirs)
        result.metrics[f"{name}: {curve}: same sentence"] = same
        result.metrics[f"{name}: {curve}: amplitude"] = float(np.std(ours) / max(float(np.std(theirs)), 1e-9))
        if curve == "opening":
            result.metrics[f"{name}: opening: lag in frames"] = float(best_lag(ours, theirs)[0])
        if other is not None:
            chance = bridged(other[:, column])
            count = min(count, len(chance))
            another = correlation(ours[:count], chance[:count])
            result.metrics[f"{name}: {curve}: another sentence"] = another
            result.metrics[f"{name}: {curve}: margin"] = same - another


def presenter_rows(metrics: Mapping[str, Interval]) -> list[Row]:
    """The table: what the model after training reaches, and the one before beside it."""

    def row(name: str, key: str, reach: str) -> Row:
        value, before = (metrics.get(f"{when}: {key}", NOTHING) for when in (AFTER, BEFORE))
        remark = f"before {before}" if before.count else ""
        if reach == MORE:
            met = not before.count or value.mean > before.mean
            return Row(name, reach, value, met if value.count else None, remark)
        return Row.judged(name, reach, value, remark)

    rows = [row(*aim) for aim in AIMS]
    for part in ("frame", "mouth", "eyes"):
        rows.append(row(f"decode of the film, PSNR: {part}", f"decode, dB: {part}", MORE))
    return rows
