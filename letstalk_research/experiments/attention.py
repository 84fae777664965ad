"""Attention over space: linear against softmax, in quality at an equal budget and in cost by resolution."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from letstalk_core.files import atomic_path
from letstalk_core.networks.checkpoint import read_header

from ..evaluation.intervals import Interval
from ..evaluation.store import ClipResult
from .cost import exponent, time_passes
from .laboratory import Laboratory
from .page import Section
from .plots import plot_bars, plot_lines
from .runs import Trained
from .tables import difference, interval, markdown, thousands
from .variants import Variant

__all__ = ["REFERENCE", "VARIANTS", "run"]

REFERENCE = "linear"
VARIANTS = [Variant(kind, {"spatial_attention": kind}) for kind in ("linear", "softmax")]
SIDES = (8, 16, 32, 64)  # of the grid of tokens whose cost is measured
REPEATS = 5
MEASURES = {
    "jaw": "jaw",
    "width": "width",
    "round": "round",
    "colour": "colour error",
    "shape": "shape error",
    "sharpness": "sharpness",
    "diversity": "diversity",
}


def run(lab: Laboratory, docs: Path) -> Section:
    trained = lab.train(REFERENCE)
    cells = {name: lab.speech(runs) for name, runs in trained.items()}
    top = [lab.ceiling()]
    times = _times(lab, trained, SIDES, REPEATS)
    factor = lab.facts.image_size // lab.facts.grid[0]
    pixels = [side * factor for side in SIDES]
    slopes = {name: exponent([s * s for s in SIDES], values) for name, values in times.items()}
    rows: list[dict[str, object]] = [_row(name, trained[name], cells[name]) for name in trained]
    rows.append({"attention": "*autoencoder alone*", **{k: interval(top, n) for k, n in MEASURES.items()}})
    gain = {k: difference(cells["softmax"], cells["linear"], n) for k, n in MEASURES.items()}
    rows.append({"attention": "*softmax - linear*", **gain})
    quality = plot_bars(
        docs / "attention-quality.png",
        {k: {n: interval(c, MEASURES[k]) for n, c in cells.items()} for k in ("jaw", "width", "colour", "shape")},
    )
    cost = plot_lines(
        docs / "attention-cost.png",
        {
            "milliseconds of a pass over one frame": {
                n: (pixels, [_spread(v) for v in t]) for n, t in times.items()
            }
        },
        x_label="pixels of a side",
        log=("x", "y"),
        ticks=pixels,
    )

    def middle(name: str, index: int) -> float:
        return statistics.median(times[name][index])

    speeds = [
        {
            "resolution": f"{p} px, {s * s} tokens",
            **{f"{name}, ms": _spread(values[i]) for name, values in times.items()},
            "softmax / linear": f"{middle('softmax', i) / middle('linear', i):.2f}",
        }
        for i, (p, s) in enumerate(zip(pixels, SIDES, strict=True))
    ]
    return Section(
        "attention",
        "Attention over space in the small",
        "Does linear attention over the tokens of a frame cost quality, and what does it save?",
        "The same network with linear and with softmax attention over space; both have the same weights and start"
        " from the same ones. Memory of 2 frames and the portrait residual are on.",
        [
            (
                "Quality",
                "Measures as on the page of the [fusion schemes](fusion.md); sharpness is the gradient energy"
                " over the portrait's. The last row is the difference person by person.",
                markdown(rows),
            ),
            (
                "Cost by resolution",
                "One pass over one frame and its memory, untrained weights: median of"
                f" {REPEATS} passes with the smallest and the largest. Cost grows with the number of tokens to the"
                f" power of {slopes['linear']:.2f} (linear) and {slopes['softmax']:.2f} (softmax), fitted over all"
                " sizes.",
                markdown(speeds),
            ),
        ],
        [
            (quality, "Mean over people with its 95 % interval."),
            (cost, "Time of one pass; both axes are logarithmic, the band is the range."),
        ],
        {**lab.shared_facts(trained, REFERENCE), **lab.speech_facts()},
    )


def _row(name: str, trained: Sequence[Trained], cells: Sequence[ClipResult]) -> dict[str, object]:
    count = len(trained)
    return {
        "attention": f"**{name}**" if name == REFERENCE else name,
        **{shown: interval(cells, key) for shown, key in MEASURES.items()},
        "parameters": thousands(trained[0].parameters),
        "steps": round(sum(r.steps for r in trained) / count),
        "a step, s": f"{sum(r.processor_seconds for r in trained) / count:.3f}",
        "validation loss": f"{sum(r.validation['loss'] for r in trained) / count:.3f}",
    }


def _times(
    lab: Laboratory, trained: dict[str, list[Trained]], sides: Sequence[int], repeats: int
) -> dict[str, list[list[float]]]:
    path = lab.folder / "cost.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept["sides"] == list(sides) and kept["repeats"] == repeats:
            return kept["times"]
    configs = {name: read_header(runs[0].file).part("dit")[1] for name, runs in trained.items()}
    times = time_passes(configs, sides, repeats=repeats)
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps({"sides": list(sides), "repeats": repeats, "times": times}), encoding="utf-8"
        )
    return times


def _spread(seconds: Sequence[float]) -> Interval:
    """Median, smallest and largest, in milliseconds."""
    return Interval(1e3 * statistics.median(seconds), 1e3 * min(seconds), 1e3 * max(seconds), len(seconds))
