"""The memory bank over more than a hundred clips: with and without it, with and without noise in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..evaluation.intervals import Interval, bootstrap
from ..evaluation.store import ClipResult
from .laboratory import Laboratory
from .long_run import measure_long_run
from .page import Section
from .plots import Line, plot_lines
from .runs import Trained
from .speaking import Speaker
from .tables import interval, late_to_early, markdown, thousands, trend_per_100
from .variants import Variant

__all__ = ["REFERENCE", "SIGMAS", "VARIANTS", "run"]

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
SMOOTH = 8  # clips of one point of a curve


def run(lab: Laboratory, docs: Path) -> Section:
    trained = lab.train(REFERENCE)
    cells = {name: [_cell(lab, r, 0.0) for r in runs] for name, runs in trained.items()}
    noisy: dict[float, list[ClipResult]] = {0.0: cells[REFERENCE]}
    noisy |= {sigma: [_cell(lab, r, sigma) for r in trained[REFERENCE]] for sigma in SIGMAS}
    b = lab.budget
    clips = b.long_clips
    picture = plot_lines(
        docs / "memory.png",
        {
            "distance from the portrait (data: 1)": _curves(cells, "distance"),
            "seam (1: none)": _curves(cells, "seam"),
            "colour error (round trip: 1)": _curves(cells, "colour error"),
            "sharpness (round trip: 1)": _curves(cells, "sharpness"),
        },
        x_label="clip",
    )
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
                markdown([_late(name, c) for name, c in cells.items()]),
            ),
            ("Change in 100 clips", "", markdown([_trend(name, c) for name, c in cells.items()])),
            (
                "Seams, movement and lips",
                "Seam: the step from one clip into the next over the step between frames inside clips; 1 is no"
                " seam. Movement: the step between frames, 1 being that of true frames. Jaw: correlation with"
                " the truth over one frame of each clip.",
                markdown([_seam(LABELS[name], c) for name, c in cells.items()]),
            ),
            (
                "Noise on the memory at inference",
                f"{LABELS[REFERENCE]}, with noise of this sigma on what it remembers; 0 is the row above.",
                markdown(
                    [
                        {"sigma": f"{s:g}", **_late("", c, first=False), **_seam("", c, first=False)}
                        for s, c in noisy.items()
                    ]
                ),
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


def _late(name: str, cells: Sequence[ClipResult], *, first: bool = True) -> dict[str, object]:
    head = {"memory": LABELS[name]} if first else {}
    names = {"distance": "distance", "colour": "colour error", "shape": "shape error", "sharpness": "sharpness"}
    return {**head, **{shown: late_to_early(cells, key) for shown, key in names.items()}}


def _trend(name: str, cells: Sequence[ClipResult]) -> dict[str, object]:
    names = {"distance": "distance", "colour": "colour error", "shape": "shape error", "sharpness": "sharpness"}
    return {"memory": LABELS[name], **{shown: trend_per_100(cells, key) for shown, key in names.items()}}


def _seam(label: str, cells: Sequence[ClipResult], *, first: bool = True) -> dict[str, object]:
    def mean(name: str) -> object:
        return bootstrap(np.nanmean(np.stack([c.curves[name] for c in cells]), axis=(0, 2)))

    head = {"memory": label} if first else {}
    return {**head, "seam": mean("seam"), "movement": mean("movement"), "jaw": interval(cells, "lips jaw")}


def _curves(cells: Mapping[str, Sequence[ClipResult]], name: str) -> dict[str, Line]:
    """Means of some clips; the band is the range over people (and trainings)."""
    lines: dict[str, Line] = {}
    for variant in CURVES:
        series = np.concatenate([c.curves[name] for c in cells[variant]])
        count = series.shape[1] // SMOOTH
        parts = np.nanmean(series[:, : count * SMOOTH].reshape(len(series), count, SMOOTH), axis=2)
        xs = [(i + 0.5) * SMOOTH for i in range(count)]
        lines[LABELS[variant]] = (
            xs,
            [Interval(float(p.mean()), float(p.min()), float(p.max()), len(p)) for p in parts.T],
        )
    return lines
