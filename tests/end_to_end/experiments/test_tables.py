"""Intervals and tables: known numbers come out, pairs are compared in pairs."""

from __future__ import annotations

import numpy as np
import pytest

from letstalk_research.evaluation.store import ClipResult
from letstalk_research.experiments import page
from letstalk_research.experiments.attention import exponent

EASY_TO_HARD = np.linspace(0.2, 0.9, 12)


def cell(values: np.ndarray) -> ClipResult:
    return ClipResult({}, {"jaw": values})


def test_an_interval_is_over_people_of_means_over_trainings() -> None:
    cells = [cell(EASY_TO_HARD), cell(EASY_TO_HARD + 0.1)]
    assert page.by_person(cells, "jaw") == pytest.approx(EASY_TO_HARD + 0.05)
    found = page.interval(cells, "jaw")
    assert found.count == 12 and found.mean == pytest.approx(0.6)
    error = (EASY_TO_HARD).std(ddof=1) / 12**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_difference_is_taken_person_by_person() -> None:
    noise = 0.01 * np.cos(np.arange(12.0))
    found = page.difference([cell(EASY_TO_HARD + 0.05 + noise)], [cell(EASY_TO_HARD)], "jaw")
    assert found.low > 0.03 and found.high < 0.07  # people differ by far more than that
    same = page.difference([cell(EASY_TO_HARD)], [cell(EASY_TO_HARD)], "jaw")
    assert 0 in same and same.high == same.low == 0


def test_people_without_a_value_are_left_out_of_both() -> None:
    values = EASY_TO_HARD.copy()
    values[3] = np.nan
    assert page.interval([cell(values)], "jaw").count == 11
    assert page.difference([cell(values)], [cell(EASY_TO_HARD)], "jaw").count == 11


def test_drift_is_found_as_ratio_and_as_trend() -> None:
    rising = np.tile(1 + np.arange(100) / 100, (3, 1))
    found = page.late_to_early([cell(rising)], "jaw")
    assert found.mean == pytest.approx(rising[0, -20:].mean() / rising[0, :20].mean())
    slope = page.trend_per_100([cell(rising)], "jaw")
    assert slope.mean == pytest.approx(1.0) and slope.low > 0.9
    noise = np.random.default_rng(0).normal(1, 0.1, (3, 100))
    assert 0 in page.trend_per_100([cell(noise)], "jaw") and 1 in page.late_to_early([cell(noise)], "jaw")


def test_a_table_has_the_columns_of_its_first_row() -> None:
    lines = page.markdown([{"a": 1, "b": "x"}, {"a": 2}]).splitlines()
    assert lines == ["| a | b |", "|---|---|", "| 1 | x |", "| 2 |  |"]


@pytest.mark.parametrize("power", [1.0, 1.7])
def test_the_exponent_of_a_power_law_is_found(power: float) -> None:
    sizes = [64, 256, 1024]
    values = [[3 * size**power, 2.9 * size**power, 9 * size**power] for size in sizes]  # one slow outlier
    assert exponent(sizes, values) == pytest.approx(power)
