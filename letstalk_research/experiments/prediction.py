"""What the network predicts, and how many sampling steps that needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..evaluation.store import ClipResult
from .laboratory import Laboratory
from .page import Line, Section, costs, interval, markdown, measures, plot_lines
from .variants import Variant

REFERENCE = "flow"
VARIANTS = [
    Variant("epsilon", {"prediction": "epsilon", "output": "prediction"}),
    Variant("v", {"prediction": "v", "output": "prediction"}),
    Variant("flow", {"prediction": "flow", "output": "prediction"}),
    Variant("flow-sample", {"prediction": "flow", "output": "sample"}),
    Variant(
        "epsilon-variance",
        {"prediction": "epsilon", "output": "prediction", "learned_variance": True, "portrait_residual": False},
    ),
]
LABELS = {
    "epsilon": "epsilon",
    "v": "v",
    "flow": "flow",
    "flow-sample": "flow, network puts out the clean sample",
    "epsilon-variance": "epsilon, learned variance, whole picture (the paper's)",
}
STEPS = (4, 8, 12, 25, 50)
ANCESTRAL = {"epsilon": 250, "v": 250, "epsilon-variance": 250}  # DDPM steps of the paper
MEASURES = {
    "jaw": "jaw",
    "width": "width",
    "colour": "colour error",
    "shape": "shape error",
    "sharpness": "sharpness",
}


def run(lab: Laboratory, docs: Path) -> Section:
    trained = lab.train(REFERENCE)
    few = lab.budget.slow_people
    cells: dict[tuple[str, str, int], list[ClipResult]] = {}
    for steps in STEPS:
        for name, runs in trained.items():
            cells[name, "euler", steps] = lab.speech(runs, steps=steps, noises=1)
    for name, steps in ANCESTRAL.items():
        cells[name, "ddpm", steps] = lab.speech(trained[name], steps=steps, solver="ddpm", people=few, noises=1)
    rows: list[dict[str, object]] = []
    for name in trained:
        for (variant, solver, steps), found in cells.items():
            if variant != name:
                continue
            if solver == "ddpm":  # nobody should compare three people with twelve
                same = [_first(cell, few) for cell in cells[name, "euler", STEPS[-1]]]
                rows.append(_row(name, f"Euler {STEPS[-1]}", same))
            rows.append(_row(name, f"{'Euler' if solver == 'euler' else 'DDPM'} {steps}", found))
    top = [lab.ceiling()]
    rows.append({"predicts": "*autoencoder alone*", **measures(top, MEASURES)})
    cost = []
    for name, runs in trained.items():
        columns = {("steps of training" if k == "steps" else k): v for k, v in costs(runs).items()}
        cost.append({"predicts": LABELS[name], **columns})

    def lines(key: str) -> dict[str, Line]:
        values = {name: [interval(cells[name, "euler", s], key) for s in STEPS] for name in trained}
        return {LABELS[name].replace(" (the paper's)", ""): (STEPS, line) for name, line in values.items()}

    panels = {
        "jaw correlation": lines("jaw"),
        "colour error": lines("colour error"),
        "shape error, px": lines("shape error"),
        "sharpness": lines("sharpness"),
    }
    picture = plot_lines(docs / "prediction.png", panels, x_label="Euler steps", log=("x",), ticks=STEPS)
    return Section(
        "prediction",
        "Prediction type and sampling steps in the small",
        "The paper predicts the noise and samples 250 DDPM steps. How few steps do noise, v and flow models need?",
        "The same network, trained to predict the noise (epsilon), v or the flow of the difference to the"
        " portrait, or to put out the clean difference on the flow's path; and, as in the paper, the noise of"
        " the whole picture with a learned variance, which differs in two points. Memory of 2 frames. Losses of"
        " different predictions cannot be compared, so none are shown.",
        [
            (
                "Results",
                "Measures as on the page of the [fusion schemes](fusion.md); sharpness is the gradient energy"
                f" over the portrait's. Euler steps follow each model's own schedule. The DDPM rows have only"
                f" the first {few} people, because 250 steps cost so much; the row above each is Euler for them.",
                markdown(rows),
            ),
            ("Training", "", markdown(cost)),
        ],
        [(picture, "Mean over people with its 95 % interval, Euler steps.")],
        {**lab.shared_facts(trained, REFERENCE), **lab.speech_facts(1)},
    )


def _row(name: str, sampler: str, cells: Sequence[ClipResult]) -> dict[str, object]:
    return {
        "predicts": f"**{LABELS[name]}**" if name == REFERENCE else LABELS[name],
        "sampler": sampler,
        **measures(cells, MEASURES),
        "people": len(cells[0].curves["jaw"]),
        "sampling, s": f"{cells[0].metrics['seconds per second']:.2f}",
    }


def _first(cell: ClipResult, people: int) -> ClipResult:
    """The measurement of the first people alone."""
    return ClipResult(cell.metrics, {name: values[:people] for name, values in cell.curves.items()})
