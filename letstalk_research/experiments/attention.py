"""Attention over space: linear against softmax, in quality at an equal budget and in cost by resolution."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from letstalk_core.networks.checkpoint import read_header
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.transformer.dit import LetsTalkDiT

from ..evaluation.intervals import Interval
from ..evaluation.store import ClipResult
from ..output import save_json
from .laboratory import Laboratory
from .page import Section, costs, difference, interval, markdown, mean_loss, measures, plot_bars, plot_lines
from .runs import Trained
from .variants import Variant

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
AUDIO_TOKENS = 4


def run(lab: Laboratory, docs: Path) -> Section:
    trained = lab.train(REFERENCE)
    cells = {name: lab.speech(runs) for name, runs in trained.items()}
    top = [lab.ceiling()]
    times = _times(lab, trained, SIDES, REPEATS)
    factor = lab.facts.image_size // lab.facts.grid[0]
    pixels = [side * factor for side in SIDES]
    slopes = {name: exponent([s * s for s in SIDES], values) for name, values in times.items()}
    rows: list[dict[str, object]] = [_row(name, trained[name], cells[name]) for name in trained]
    rows.append({"attention": "*autoencoder alone*", **measures(top, MEASURES)})
    gain = {k: difference(cells["softmax"], cells["linear"], n) for k, n in MEASURES.items()}
    rows.append({"attention": "*softmax - linear*", **gain})
    quality = plot_bars(
        docs / "attention-quality.png",
        {k: {n: interval(c, MEASURES[k]) for n, c in cells.items()} for k in ("jaw", "width", "colour", "shape")},
    )
    spreads = {name: [_spread(values) for values in rows] for name, rows in times.items()}
    panel = {"milliseconds of a pass over one frame": {n: (pixels, values) for n, values in spreads.items()}}
    picture = docs / "attention-cost.png"
    cost = plot_lines(picture, panel, x_label="pixels of a side", log=("x", "y"), ticks=pixels)
    speeds = [
        {
            "resolution": f"{p} px, {s * s} tokens",
            **{f"{name}, ms": values[i] for name, values in spreads.items()},
            "softmax / linear": f"{spreads['softmax'][i].mean / spreads['linear'][i].mean:.2f}",
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
    cost = {column: value for column, value in costs(trained).items() if column != "training, s"}
    return {
        "attention": f"**{name}**" if name == REFERENCE else name,
        **measures(cells, MEASURES),
        **cost,
        "validation loss": f"{mean_loss(trained):.3f}",
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
    save_json(path, {"sides": list(sides), "repeats": repeats, "times": times})
    return times


def _spread(seconds: Sequence[float]) -> Interval:
    """Median, smallest and largest, in milliseconds."""
    return Interval(1e3 * statistics.median(seconds), 1e3 * min(seconds), 1e3 * max(seconds), len(seconds))


@torch.no_grad()
def time_passes(
    configs: Mapping[str, DiTConfig], sides: Sequence[int], *, repeats: int = 5
) -> dict[str, list[list[float]]]:
    """Seconds of processor time of one pass over one frame, for each config and side of the token grid `repeats`.

    The configs take turns, so that a machine that is busy for a while does not favour one of them.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in configs}
    for side in sides:
        calls = {}
        for name, config in configs.items():
            dit = LetsTalkDiT(config).eval()
            dit.init_weights()
            c = config.in_channels
            inputs = (
                torch.randn(1, 1, c, side, side),
                torch.tensor([500.0]),
                torch.randn(1, c, side, side),
                torch.randn(1, config.bank_frames, c, side, side),
                torch.randn(1, 1, AUDIO_TOKENS, config.audio_token_dim),
            )
            calls[name] = (dit, inputs)
            dit(*inputs)  # the first pass is slower
        found: dict[str, list[float]] = {name: [] for name in configs}
        for _ in range(repeats):
            for name, (dit, inputs) in calls.items():
                begun = time.process_time()
                dit(*inputs)
                found[name].append(time.process_time() - begun)
        for name, values in found.items():
            times[name].append(values)
    return times


def exponent(sizes: Sequence[float], values: Sequence[Sequence[float]]) -> float:
    """Least-squares slope of log median time over log size."""
    xs = [math.log(size) for size in sizes]
    ys = [math.log(statistics.median(times)) for times in values]
    x_mean, y_mean = statistics.fmean(xs), statistics.fmean(ys)
    rise = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return rise / sum((x - x_mean) ** 2 for x in xs)
