"""Intervals of means, ratios and trends against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from letstalk_core.errors import ConfigError
from letstalk_research.evaluation.intervals import bootstrap, ratio, summarise, trend


def test_bootstrap_covers_the_mean_and_shrinks_with_more_clips() -> None:
    x = np.random.default_rng(0).normal(5, 1, 400)
    few, many = bootstrap(x[:16]), bootstrap(x)
    assert 5 in many
    assert many.high - many.low < 0.5 * (few.high - few.low)
    # 2 * 1.96 * sd / sqrt(n), the interval of a normal distribution
    assert many.high - many.low == pytest.approx(3.92 * x.std() / 20, rel=0.1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00 [0.00, 0.00]"), (0.0017, "0.00170 [0.00170, 0.00170]"), (0.85, "0.850 [0.850, 0.850]")],
)
def test_three_digits_are_shown(value: float, text: str) -> None:
    assert str(bootstrap([value])) == text


def test_values_that_are_missing_are_left_out() -> None:
    found = summarise([{"a": 1.0}, {"a": 3.0, "b": math.nan}])
    assert found["a"].mean == 2.0 and found["a"].count == 2
    assert found["b"].count == 0 and str(found["b"]) == "-"


def test_a_level_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="level=1.5"):
        bootstrap([1.0], level=1.5)


def test_a_ratio_of_proportional_values_is_certain() -> None:
    below = np.random.default_rng(0).uniform(1, 2, 12)
    found = ratio([*(1.5 * below), math.nan], [*below, 1.0])
    assert found.mean == pytest.approx(1.5) and found.high - found.low < 1e-9 and found.count == 12
    assert ratio([1.0], [0.0]).count == 0
    assert ratio([1.0, 1.0], [0.0, 2.0]).low == pytest.approx(0.5)  # resamples without a denominator do not count


def slow_noise(n: int, seed: int) -> np.ndarray:
    """Noise whose neighbours resemble each other over some ten steps."""
    return np.convolve(np.random.default_rng(seed).normal(size=n + 20), np.ones(10) / 10, "same")[10 : n + 10]


def test_a_trend_is_told_from_slow_noise() -> None:
    x = np.arange(400)
    found = trend(slow_noise(400, 0) + 0.01 * x, per=100)
    assert 1 in found and 0 not in found
    covered = [0 in trend(slow_noise(400, seed)) for seed in range(40)]
    assert sum(covered) >= 32  # nominally 38 of 40; blocks are a little too sure of short series


def test_a_trend_needs_some_values() -> None:
    assert trend([1.0, 2.0]).count == 0
