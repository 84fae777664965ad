"""The memory bank over more than a hundred clips: with and without it, with and without noise in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..evaluation.intervals import Interval, bootstrap
from ..evaluation.metrics import Array, correlation
from ..evaluation.store import ClipResult
from ..evaluation.suite import looks
from .laboratory import Laboratory
from .page import Line, Section, interval, late_to_early, markdown, plot_lines, thousands, trend_per_100
from .people import FPS, SHOWN, Codec, Person, Speaker
from .runs import Trained
from .variants import DataFacts, Variant

CALM = {"memory_ddpm_steps": 0, "memory_sigma": 0.0, "memory_mask": 0.0}  # memory as the encoder gave it
NOISY = {"memory_ddpm_steps": 50, "memory_mask": 0.25, "memory_mask_probability": 1.0}  # the paper's
REFERENCE = "m2-noise"
VARIANTS = [
    Variant("none", {"memory_frames": 0}, CALM),
    Variant("m2", {"memory_frames": 2}, CALM),
    Variant("m2-noise", {"memory_frames": 2}, NOISY),
    Variant("m1-noise", {"memory_frames": 1}, NOISY),
    Variant("m4-noise", {"memory_frames": 4}, NOISY),
    Variant("m2-noise-anchor", {"memory_frames": 2, "anchor_frames": 1}, NOISY),
    Variant("m2-anchor", {"memory_frames": 2, "anchor_frames": 1}, CALM),
]
LABELS = {
    "none": "no memory",
    "m2": "m = 2, no noise in training",
    "m2-noise": "m = 2, noise",
    "m1-noise": "m = 1, noise",
    "m4-noise": "m = 4, noise",
    "m2-noise-anchor": "m = 2, noise, anchor",
    "m2-anchor": "m = 2, anchor, no noise in training",
}
CURVES = ("none", "m2", "m2-noise", "m2-noise-anchor")
SIGMAS = (0.05, 0.1, 0.2, 0.4)  # of the noise on memory at inference, besides none
SERIES = {"distance": "distance", "colour": "colour error", "shape": "shape error", "sharpness": "sharpness"}
SMOOTH = 8  # clips of one point of a curve
LATENT_SERIES = ("distance", "seam", "movement")
PICTURE_SERIES = ("colour error", "shape error", "sharpness")


def run(lab: Laboratory, docs: Path) -> Section:
    trained = lab.train(REFERENCE)
    cells = {name: [_cell(lab, r, 0.0) for r in runs] for name, runs in trained.items()}
    noisy: dict[float, list[ClipResult]] = {0.0: cells[REFERENCE]}
    noisy |= {sigma: [_cell(lab, r, sigma) for r in trained[REFERENCE]] for sigma in SIGMAS}
    b = lab.budget
    clips = b.long_clips
    panels = {
        "distance from the portrait (data: 1)": _curves(cells, "distance"),
        "seam (1: none)": _curves(cells, "seam"),
        "colour error (round trip: 1)": _curves(cells, "colour error"),
        "sharpness (round trip: 1)": _curves(cells, "sharpness"),
    }
    picture = plot_lines(docs / "memory.png", panels, x_label="clip")

    def table(columns: Callable[[Sequence[ClipResult]], dict[str, object]]) -> str:
        return markdown([{"memory": LABELS[name], **columns(c)} for name, c in cells.items()])

    return Section(
        "memory",
        "Memory in the small",
        "Does the memory bank join clips without a seam, does it make long videos drift, and does noise on the"
        " memory in training prevent that, as the paper says?",
        f"Each variant makes {clips} clips in a row ({clips * b.clip_frames / 25:.0f} s) of the same people."
        " Variants differ in the number m of remembered frames, in the disturbance of the memory in training (the"
        " paper's: DDPM noise below step 50 and a quarter of the positions zeroed) and in an anchor, the"
        " portrait as one more frame of memory that never changes. Equal for all, and also a regularisation: the"
        " memory is dropped in a tenth of the training samples and is the portrait in 15 %. The portrait"
        " residual is on.",
        [
            (
                "Drift",
                "Distance: of a clip's latents from the portrait's, 1 being that of true frames. Colour, shape,"
                " sharpness: of one decoded frame of each clip, 1 being those of the portrait through the"
                " autoencoder. Each as the last fifth of the clips over the first fifth (interval over people);"
                " below, as change in 100 clips (interval by resampling blocks of the mean series).",
                table(_late),
            ),
            ("Change in 100 clips", "", table(_trend)),
            (
                "Seams, movement and lips",
                "Seam: the step from one clip into the next over the step between frames inside clips; 1 is no"
                " seam. Movement: the step between frames, 1 being that of true frames. Jaw: correlation with"
                " the truth over one frame of each clip.",
                table(_seam),
            ),
            (
                "Noise on the memory at inference",
                f"{LABELS[REFERENCE]}, with noise of this sigma on what it remembers; 0 is the row above.",
                markdown([{"sigma": f"{s:g}", **_late(c), **_seam(c)} for s, c in noisy.items()]),
            ),
        ],
        [(picture, f"Means of {SMOOTH} clips, with the range over people.")],
        {
            **lab.shared_facts(trained, LABELS[REFERENCE]),
            "cost": "; ".join(
                f"{LABELS[n]} {thousands(runs[0].parameters)} parameters,"
                f" {np.mean([r.processor_seconds for r in runs]):.2f} s a step"
                for n, runs in trained.items()
            ),
            "measured": f"{b.long_people} people of no training data (seed {lab.group.seed}), {clips} clips each,"
            f" {b.long_steps} Euler steps, noise seed 500, no guidance; latents of every frame, one decoded"
            " frame of each clip",
            "intervals": f"95 %; with {b.long_people} people those over people are only a rough guide",
        },
    )


def _cell(lab: Laboratory, trained: Trained, sigma: float) -> ClipResult:
    def measure() -> ClipResult:
        speaker = Speaker(trained, lab.budget.long_steps, memory_noise=sigma)
        return measure_long_run(speaker, lab.group.long, lab.group.codec, lab.facts)

    return lab.cell(f"{trained.name}-seed{trained.seed}-sigma{sigma:g}", measure)


def _late(cells: Sequence[ClipResult]) -> dict[str, object]:
    return {shown: late_to_early(cells, key) for shown, key in SERIES.items()}


def _trend(cells: Sequence[ClipResult]) -> dict[str, object]:
    return {shown: trend_per_100(cells, key) for shown, key in SERIES.items()}


def _seam(cells: Sequence[ClipResult]) -> dict[str, object]:
    def mean(name: str) -> object:
        return bootstrap(np.nanmean(np.stack([c.curves[name] for c in cells]), axis=(0, 2)))

    return {"seam": mean("seam"), "movement": mean("movement"), "jaw": interval(cells, "lips jaw")}


def _curves(cells: Mapping[str, Sequence[ClipResult]], name: str) -> dict[str, Line]:
    """Means of some clips; the band is the range over people (and trainings)."""
    lines: dict[str, Line] = {}
    for variant in CURVES:
        series = np.concatenate([c.curves[name] for c in cells[variant]])
        count = series.shape[1] // SMOOTH
        parts = np.nanmean(series[:, : count * SMOOTH].reshape(len(series), count, SMOOTH), axis=2)
        spread = [Interval(float(p.mean()), float(p.min()), float(p.max()), len(p)) for p in parts.T]
        lines[LABELS[variant]] = ([(i + 0.5) * SMOOTH for i in range(count)], spread)
    return lines


def measure_long_run(speaker: Speaker, people: Sequence[Person], codec: Codec, facts: DataFacts) -> ClipResult:
    """Curves (people, clips):

    - distance of a clip's latents from the portrait's, 1 being that of true frames;
    - seam: the step from the clip before into this one over the mean step within clips (NaN for the first clip);
    - movement: the mean step within the clip, 1 being that of true frames;
    - colour error, shape error, sharpness of the decoded frame, 1 being those of the portrait's round trip.

    Metrics: lip correlations over the decoded frames of all people together; the same per person as curves.
    """
    frames = len(people[0].truth)
    clip = speaker.config.clip_frames
    shown = clip // 2  # of each clip, decoded
    units = [_pictures(person, codec.decode(person.portrait[None])) for person in people]
    distance: list[Array] = []
    step_in: list[Array] = []
    step_over: list[Array] = []
    pictures: list[Array] = []
    readings: list[Array] = []
    last: Tensor | None = None
    for latents in speaker.clips(people, frames, 500):
        portrait = torch.stack([p.portrait for p in people])[:, None]
        distance.append(_rms(latents - portrait))
        step_in.append(_rms(latents.diff(dim=1)))
        step_over.append(np.full(len(people), np.nan) if last is None else _rms(latents[:, :1] - last))
        last = latents[:, -1:]
        decoded = [codec.decode(own[shown : shown + 1]) for own in latents]
        pictures.append(np.stack([_pictures(p, d) / u for p, d, u in zip(people, decoded, units, strict=True)]))
        readings.append(np.concatenate([p.reader.read(d) for p, d in zip(people, decoded, strict=True)]))
    inside = np.stack(step_in, 1)
    found = {
        "distance": np.stack(distance, 1) / facts.from_portrait,
        "seam": np.stack(step_over, 1) / np.maximum(inside.mean(1, keepdims=True), 1e-9),
        "movement": inside / facts.between_frames,
    }
    looks, read = np.stack(pictures, 1), np.stack(readings, 1)
    curves = {name: found[name] for name in LATENT_SERIES}
    curves |= {name: looks[:, :, i] for i, name in enumerate(PICTURE_SERIES)}
    for i, lip in enumerate(SHOWN):
        curves[f"lips {lip}"] = np.array(
            [correlation(r[:, i], p.truth[shown::clip, i]) for r, p in zip(read, people, strict=True)]
        )
    seconds = len(people) * frames / FPS
    return ClipResult({"seconds per second": speaker.seconds / seconds}, curves)


def _rms(x: Tensor) -> Array:
    """Root mean square of each person's numbers: (people, ...) -> (people,)."""
    return np.asarray(x.float().square().flatten(1).mean(1).sqrt().double().cpu().numpy())


def _pictures(person: Person, frame: Tensor) -> Array:
    """PICTURE_SERIES of one frame (1, h, w, 3), not smaller than a millionth."""
    values = looks(person.reader, person.calm, person.trial.portrait, frame)
    return np.maximum(np.array([v[0] for v in values], np.float64), 1e-6)
