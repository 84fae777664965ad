"""How sure a number is: means, ratios and trends with bootstrap intervals.

Undefined values are NaN and are left out. Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993),
ch. 13; for series whose neighbours resemble each other, Kuensch, Ann. Statist. 17 (1989): blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from letstalk_core.errors import ConfigError

from .metrics import Array

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval. `count` is the number of clips (or moments) that it comes from."""

    mean: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def __contains__(self, value: float) -> bool:
        """Whether the value cannot be told from this one."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if not self.count:
            return "-"
        scale = max(abs(self.mean), abs(self.low), abs(self.high))
        digits = max(0, min(6, 2 - math.floor(math.log10(scale)))) if scale > 0 else 2
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def bootstrap(values: Sequence[float] | Array, *, level: float = 0.95) -> Interval:
    """Mean of independent values and its percentile interval. Raises: ConfigError."""
    if not 0 < level < 1:
        raise ConfigError(f"level={level} must be between 0 and 1")
    x = np.asarray(values, np.float64)
    x = x[np.isfinite(x)]
    if not len(x):
        return NOTHING
    index = np.random.default_rng(0).integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.quantile(x[index].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(x.mean()), float(low), float(high), len(x))


def ratio(above: Sequence[float] | Array, below: Sequence[float] | Array) -> Interval:
    """Mean of one quantity over the mean of another, both known for each clip.

    Pairs are resampled together. Pairs with an undefined value are left out.
    """
    x = np.stack([np.asarray(above, np.float64), np.asarray(below, np.float64)])
    x = x[:, np.isfinite(x).all(0)]
    if not x.shape[1] or x[1].mean() == 0:
        return NOTHING
    index = np.random.default_rng(0).integers(0, x.shape[1], (RESAMPLES, x.shape[1]))
    means = x[:, index].mean(2)
    low, high = np.nanquantile(means[0] / np.where(means[1] == 0, np.nan, means[1]), [0.025, 0.975])
    return Interval(float(x[0].mean() / x[1].mean()), float(low), float(high), x.shape[1])


def trend(series: Sequence[float] | Array, *, per: float = 1.0) -> Interval:
    """Least-squares slope of a long series, as its change in `per` steps.

    The interval resamples blocks of sqrt(n) neighbouring residuals: slow movement is not taken for a trend.
    """
    y = np.asarray(series, np.float64)
    x = np.arange(len(y), dtype=np.float64)[np.isfinite(y)]
    y = y[np.isfinite(y)]
    if len(y) < 4:
        return NOTHING
    centred = x - x.mean()
    weights = centred / (centred @ centred)  # slope = weights @ y
    slope = float(weights @ y)
    residual = y - y.mean() - slope * centred
    block = math.ceil(math.sqrt(len(y)))
    starts = np.random.default_rng(0).integers(0, len(y), (RESAMPLES, math.ceil(len(y) / block)))
    index = ((starts[:, :, None] + np.arange(block)) % len(y)).reshape(RESAMPLES, -1)[:, : len(y)]
    low, high = np.quantile(slope + residual[index] @ weights, [0.025, 0.975])
    return Interval(slope * per, float(low) * per, float(high) * per, len(y))


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    """One interval for each name that occurs in the rows (one row a clip)."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: bootstrap([row.get(name, math.nan) for row in rows]) for name in names}
