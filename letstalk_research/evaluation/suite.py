"""Measures a model on people, sentences and voices that it was not trained on (`letstalk evaluate`).

Every trial is a newly drawn person saying a held-out sentence in a held-out voice. The model gets the portrait and
the sound; its frames are compared with the drawing that the same sound gives. The model is reached through
`Subject` only, so anything that makes frames from a portrait and a sound can be measured. `demo_suite` adds tests
of long videos, silence, other sound and several seeds.

Measured, each as mean over clips with a bootstrap interval:
- lips: correlation of the lips read from the frames with the truth, lag, amplitude, how far the mouth stays open
  where it should be closed; controls: the same frames against the speech of another clip, and the readings of the
  drawings themselves and of their autoencoder round trip;
- eyes and head: blinks a minute, amplitude of head movement;
- identity: colour error of what keeps still, error of the face's shape, each beside that of the round trip;
- drift: trends of those errors and of sharpness over a clip;
- autoencoder: PSNR of the round trip of whole frames, mouths and eyes, also for the lightest and darkest skin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from letstalk_core.errors import ConfigError

from .face_reader import LIPS
from .intervals import summarise
from .metrics import correlation
from .report import Report
from .speech_clip import measure_trial
from .store import ClipResult, Store
from .trials import Subject, draw_trial

__all__ = ["add_controls", "run_suite"]

LEAST_FRAMES = 8

Progress = Callable[[int, int, ClipResult], None]


def run_suite(
    subject: Subject,
    *,
    clips: int = 24,
    seconds: float = 6.4,
    seed: int = 0,
    poses: int = 240,
    out_dir: Path | None = None,
    store: Store | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a model; with `out_dir`, also write report.json, report.md, plots and contact sheets there.

    `notes` (JSON values, such as model hashes) go into the report's settings. A `store` keeps finished clips.

    Raises: ConfigError, DependencyError without espeak-ng, OutputError.
    """
    frames = round(seconds * subject.fps)
    if clips < 1 or frames < LEAST_FRAMES:
        raise ConfigError(
            f"clips={clips} must be at least 1 and seconds={seconds} at least {LEAST_FRAMES} frames long"
        )
    store = store or Store(None, {})
    results: list[ClipResult] = []
    for index in range(clips):

        def measure(index: int = index) -> ClipResult:
            trial = draw_trial(seed, index, frames=frames, fps=subject.fps, size=subject.size)
            return measure_trial(subject, trial, poses=poses)

        result, _ = store.get(f"speech_{index:03d}", measure)
        results.append(result)
        if progress is not None:
            progress(index + 1, clips, result)
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
