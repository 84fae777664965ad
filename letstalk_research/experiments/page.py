"""The page of an experiment: tables of numbers with their intervals, and small plots of them.

Results between two marks are written anew, the words around them are kept.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from letstalk_core.errors import DependencyError, OutputError

from ..evaluation.intervals import Interval, bootstrap, trend
from ..evaluation.metrics import Array
from ..evaluation.store import ClipResult
from ..output import pyplot, save_figure, save_text
from .runs import Trained

BEGIN = "<!-- results: written by `letstalk experiment`, do not edit -->"
END = "<!-- end of results -->"
MARKED = 12  # lines of fewer points show them
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#222222")

Line = tuple[Sequence[float], Sequence[Interval]]  # x and y


@dataclass
class Section:
    """What an experiment has to show. `about` says what was varied and what is measured."""

    name: str
    title: str
    question: str
    about: str
    tables: list[tuple[str, str, str]] = field(default_factory=list)  # heading, words above the table, table
    pictures: list[tuple[Path, str]] = field(default_factory=list)  # file beside the page, caption
    facts: dict[str, str] = field(default_factory=dict)


def write_page(section: Section, folder: Path, *, command: str, facts: Mapping[str, str]) -> Path:
    """Write or renew `folder`/<name>.md. Raises: OutputError if the page has lost its marks."""
    path = folder / f"{section.name}.md"
    body = "\n\n".join([BEGIN, *_body(section, command, {**facts, **section.facts}), END])
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise OutputError(f"{path}: has no marks {BEGIN!r} and {END!r}; put them back or move the page away")
        text = before + body + after
    else:
        text = f"# {section.title}\n\n{section.question}\n\n## Findings\nNot written yet.\n\n{body}\n"
    save_text(path, text)
    return path


def _body(section: Section, command: str, facts: Mapping[str, str]) -> list[str]:
    parts = [f"## Set-up\n{section.about}", f"```\n{command}\n```"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    for heading, words, table in section.tables:
        parts += [f"## {heading}", words, table]
    parts += [f"![{caption}]({path.name})\n\n*{caption}*" for path, caption in section.pictures]
    return [part for part in parts if part]


def machine() -> dict[str, str]:
    """Where and when, for the page."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    today = datetime.now(timezone.utc)
    threads, version = torch.get_num_threads(), torch.__version__.partition("+")[0]
    return {
        "machine": f"{device}, {threads} thread{'s' if threads > 1 else ''}, torch {version}",
        "date": f"{today.day} {today:%B %Y}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names: Sequence[str] = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    bfloat = " with bfloat16 in hardware" if "avx512_bf16" in flags.split() else ""
    return (names[0] if names else platform.machine()) + bfloat


def by_person(cells: Sequence[ClipResult], name: str) -> Array:
    """A measure of each person, mean over the trainings of a variant (one cell each)."""
    values: Array = np.stack([cell.curves[name] for cell in cells])
    return np.asarray(values.mean(0))


def interval(cells: Sequence[ClipResult], name: str) -> Interval:
    """Mean over people, with its bootstrap interval over people."""
    return bootstrap(by_person(cells, name))


def difference(cells: Sequence[ClipResult], reference: Sequence[ClipResult], name: str) -> Interval:
    """How much more than the reference, person by person, which takes out that some people are easier."""
    return bootstrap(by_person(cells, name) - by_person(reference, name))


def trend_per_100(cells: Sequence[ClipResult], name: str) -> Interval:
    """Change in 100 clips of a series (people, clips), mean over people and trainings; blocks are resampled."""
    return trend(np.nanmean(np.concatenate([c.curves[name] for c in cells]), axis=0), per=100.0)


def late_to_early(cells: Sequence[ClipResult], name: str, share: float = 0.2) -> Interval:
    """The last fifth of the clips over the first: mean over people of each one's ratio."""
    series = np.concatenate([c.curves[name] for c in cells])
    count = max(1, round(share * series.shape[1]))
    return bootstrap(np.nanmean(series[:, -count:], axis=1) / np.nanmean(series[:, :count], axis=1))


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A table of the columns of the first row; missing values are empty."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def measures(cells: Sequence[ClipResult], names: Mapping[str, str]) -> dict[str, Interval]:
    """Columns of a table: for each of them the measure of its name."""
    return {column: interval(cells, name) for column, name in names.items()}


def costs(runs: Sequence[Trained]) -> dict[str, object]:
    """Columns on the trainings of a variant, means over them."""
    count = len(runs)
    return {
        "parameters": thousands(runs[0].parameters),
        "steps": round(sum(run.steps for run in runs) / count),
        "a step, s": f"{sum(run.processor_seconds for run in runs) / count:.3f}",
        "training, s": f"{sum(run.seconds for run in runs) / count:.0f}",
    }


def mean_loss(runs: Sequence[Trained], name: str = "loss") -> float:
    """Of the validation, mean over the trainings of a variant."""
    return sum(run.validation[name] for run in runs) / len(runs)


def thousands(count: float) -> str:
    return f"{count / 1000:,.0f} k"


def plot_bars(
    path: Path,
    groups: Mapping[str, Mapping[str, Interval]],
    *,
    marks: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """One panel for each measure: a point with its interval for each variant; `marks` are dashed lines by name."""
    size = 3.4 * len(groups), 0.8 + 0.32 * max(map(len, groups.values()))
    figure, axes = _pyplot().subplots(1, len(groups), figsize=size, squeeze=False)
    for index, (axis, (measure, rows)) in enumerate(zip(axes[0], groups.items(), strict=True)):
        names = list(rows)
        for i, name in enumerate(names):
            value, y = rows[name], len(names) - 1 - i
            if value.count:
                axis.plot([value.low, value.high], [y, y], color=PALETTE[0], linewidth=2)
                axis.plot([value.mean], [y], "o", color=PALETTE[0], markersize=5)
        for k, (name, x) in enumerate((marks or {}).get(measure, {}).items()):
            if np.isfinite(x):
                axis.axvline(x, color=PALETTE[6], linestyle=("--", ":")[k % 2], linewidth=1, label=name)
        axis.set_yticks(range(len(names)), names[::-1] if index == 0 else [""] * len(names), fontsize=8)
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_title(measure, fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(axis="x", alpha=0.3)
        if (marks or {}).get(measure):
            axis.legend(fontsize=6)
    return save_figure(figure, path)


def plot_lines(
    path: Path,
    panels: Mapping[str, Mapping[str, Line]],
    *,
    x_label: str,
    log: tuple[str, ...] = (),
    ticks: Sequence[float] = (),
) -> Path:
    """One panel for each measure, one line with a band for each variant. `log` names logarithmic axes, x or y."""
    plot = _pyplot()
    figure, axes = plot.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    for axis, (measure, lines) in zip(axes[0], panels.items(), strict=True):
        for k, (name, (xs, values)) in enumerate(lines.items()):
            color = PALETTE[k % len(PALETTE)]
            means = [v.mean for v in values]
            style = "o-" if len(xs) < MARKED else "-"
            axis.plot(xs, means, style, color=color, markersize=4, linewidth=1.2, label=name)
            low, high = [v.low for v in values], [v.high for v in values]
            axis.fill_between(xs, low, high, color=color, alpha=0.15, linewidth=0)
        if "x" in log:
            axis.set_xscale("log", base=2)
        if "y" in log:
            axis.set_yscale("log")
        if len(ticks):
            axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axis.xaxis.set_minor_locator(plot.NullLocator())
        axis.set_title(measure, fontsize=9)
        axis.set_xlabel(x_label, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    return save_figure(figure, path)


def _pyplot() -> Any:
    plot = pyplot()
    if plot is None:
        raise DependencyError("plots of experiments need matplotlib; pip install 'letstalk-portrait[train]'")
    return plot
