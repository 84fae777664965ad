"""Small pictures of an experiment's results. Every point has its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from letstalk_core.errors import DependencyError
from letstalk_core.files import atomic_path

from ..evaluation.intervals import Interval

__all__ = ["Line", "plot_bars", "plot_lines"]

DPI = 80
MARKED = 12  # lines of fewer points show them
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#222222")

Line = tuple[Sequence[float], Sequence[Interval]]  # x and y


def plot_bars(
    path: Path,
    groups: Mapping[str, Mapping[str, Interval]],
    *,
    marks: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """One panel for each measure: a point with its interval for each variant; `marks` are dashed lines by name."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(
        1, len(groups), figsize=(3.4 * len(groups), 0.8 + 0.32 * _rows(groups)), squeeze=False
    )
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
    return _save(figure, path)


def plot_lines(
    path: Path,
    panels: Mapping[str, Mapping[str, Line]],
    *,
    x_label: str,
    log: tuple[str, ...] = (),
    ticks: Sequence[float] = (),
) -> Path:
    """One panel for each measure, one line with a band for each variant. `log` names logarithmic axes, x or y."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    for axis, (measure, lines) in zip(axes[0], panels.items(), strict=True):
        for k, (name, (xs, values)) in enumerate(lines.items()):
            color = PALETTE[k % len(PALETTE)]
            means = [v.mean for v in values]
            axis.plot(
                xs, means, "o-" if len(xs) < MARKED else "-", color=color, markersize=4, linewidth=1.2, label=name
            )
            axis.fill_between(
                xs, [v.low for v in values], [v.high for v in values], color=color, alpha=0.15, linewidth=0
            )
        if "x" in log:
            axis.set_xscale("log", base=2)
        if "y" in log:
            axis.set_yscale("log")
        if len(ticks):
            axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axis.xaxis.set_minor_locator(pyplot.NullLocator())
        axis.set_title(measure, fontsize=9)
        axis.set_xlabel(x_label, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    return _save(figure, path)


def _rows(groups: Mapping[str, Mapping[str, Interval]]) -> int:
    return max(len(rows) for rows in groups.values())


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise DependencyError(
            f"plots of experiments need matplotlib ({error}); pip install 'letstalk-portrait[train]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
    _pyplot().close(figure)
    return path
