"""How portrait and audio enter: all nine pairs of direct, siamese and symbiotic fusion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ..evaluation.store import ClipResult
from .laboratory import Laboratory
from .page import Section, costs, difference, interval, markdown, mean_loss, measures, plot_bars
from .runs import Trained
from .variants import Variant

SCHEMES = ("direct", "siamese", "symbiotic")
REFERENCE = "symbiotic-direct"  # the paper's choice
# Memory would bring the portrait in by another way.
ALONE = {"memory_frames": 0, "anchor_frames": 0}
VARIANTS = [
    Variant(f"{portrait}-{audio}", {**ALONE, "portrait_fusion": portrait, "audio_fusion": audio})
    for portrait, audio in product(SCHEMES, SCHEMES)
]
MEASURES = {
    "jaw": "jaw",
    "width": "width",
    "round": "round",
    "chance": "jaw, other speech",
    "colour": "colour error",
    "shape": "shape error",
    "diversity": "diversity",
}
COMPARED = ("jaw", "colour", "shape")


def run(lab: Laboratory, docs: Path) -> Section:
    trained = lab.train(REFERENCE)
    cells = {name: lab.speech(runs) for name, runs in trained.items()}
    top = [lab.ceiling()]
    shown = {f"**{_pair(n)}**" if n == REFERENCE else _pair(n): c for n, c in cells.items()}
    shown["*autoencoder alone*"] = top
    rows = [{"portrait, audio": name, **measures(c, MEASURES)} for name, c in shown.items()]
    picture = _plot(docs / "fusion.png", cells, top)
    return Section(
        "fusion",
        "Fusion in the small",
        "Which way should the portrait and the speech enter the denoiser? The paper chooses symbiotic fusion for"
        " the portrait and direct fusion for the audio. Here are all nine pairs at an equal budget.",
        "All pairs of the schemes of [model.md](../model.md), Fusion. The memory bank is off, since it would"
        " bring the portrait in by another way. The network works on the difference to the portrait, as the demo"
        " model does: without that so small a one would learn to paint faces before it learns to move lips. What"
        " keeps still is then right from the start, and identity errors say how well moving parts fit the"
        " person. Everything else is equal.",
        [
            (
                "Results",
                "Lips: correlation with the truth (jaw, width, rounding); *chance* is that of the jaw with the"
                " speech of another person. Colour: mean difference from the portrait of what keeps still, in"
                " levels of 255. Shape: pixels by which landmarks lie where no pose of the person puts them."
                " Diversity: variance of the head's movement over seeds of the noise as a share of the data's;"
                " for the autoencoder alone, what errors of reading add.",
                markdown(rows),
            ),
            (
                "Against the paper's choice",
                f"Differences from {_pair(REFERENCE)}, person by person. An interval that holds 0 tells nothing"
                " apart.",
                markdown([_against(name, cells[name], cells[REFERENCE]) for name in trained if name != REFERENCE]),
            ),
            (
                "Cost",
                "Parameters are the denoiser's. Validation loss has no interval; *own sound* is how much lower"
                " it is than with the sound of another clip.",
                markdown([_cost(name, trained[name], cells[name]) for name in trained]),
            ),
        ],
        [(picture, "Each point is the mean over people with its 95 % interval; dashed: the autoencoder alone.")],
        {**lab.shared_facts(trained, _pair(REFERENCE)), **lab.speech_facts()},
    )


def _pair(name: str) -> str:
    return name.replace("-", ", ")


def _against(name: str, cells: Sequence[ClipResult], reference: Sequence[ClipResult]) -> dict[str, object]:
    apart = {column: difference(cells, reference, MEASURES[column]) for column in COMPARED}
    return {"portrait, audio": _pair(name), **apart}


def _cost(name: str, trained: Sequence[Trained], cells: Sequence[ClipResult]) -> dict[str, object]:
    loss, other = mean_loss(trained), mean_loss(trained, "loss_other_audio")
    return {
        "portrait, audio": _pair(name),
        **costs(trained),
        "sampling, s": f"{sum(c.metrics['seconds per second'] for c in cells) / len(cells):.2f}",
        "validation loss": f"{loss:.3f}",
        "own sound": f"{other - loss:+.4f}",
    }


def _plot(path: Path, cells: dict[str, list[ClipResult]], top: Sequence[ClipResult]) -> Path:
    measures = {
        "jaw correlation": "jaw",
        "colour error": "colour error",
        "shape error, px": "shape error",
        "diversity": "diversity",
    }
    panels = {shown: {_pair(n): interval(c, key) for n, c in cells.items()} for shown, key in measures.items()}
    marks = {
        shown: {"autoencoder": interval(top, key).mean} for shown, key in measures.items() if key != "diversity"
    }
    return plot_bars(path, panels, marks=marks)
