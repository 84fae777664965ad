"""Numbers of an experiment with their intervals, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..evaluation.intervals import Interval, bootstrap, trend
from ..evaluation.store import ClipResult

__all__ = ["by_person", "difference", "interval", "late_to_early", "markdown", "thousands", "trend_per_100"]

Array = NDArray[np.float64]


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


def thousands(count: float) -> str:
    return f"{count / 1000:,.0f} k"
