"""Numbers about videos against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_research.evaluation import metrics
from letstalk_research.evaluation.intervals import bootstrap, ratio, summarise, trend


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@given(late=st.integers(-5, 5))
def test_lag_is_how_late_the_measured_curve_comes(late: int) -> None:
    curve = np.random.default_rng(0).normal(size=80)
    lag, r = metrics.best_lag(curve[20 - late : 60 - late], curve[20:60])
    assert lag == late and r == pytest.approx(1.0)


def test_curves_that_do_not_move_have_no_correlation() -> None:
    moving = np.sin(np.arange(20.0))
    assert math.isnan(metrics.correlation(moving, np.ones(20)))
    lag, r = metrics.best_lag(np.ones(20), moving)
    assert lag == 0 and math.isnan(r)
    assert metrics.correlation(moving, 3 - 2 * moving) == pytest.approx(-1)


def test_psnr_of_a_known_error() -> None:
    a = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)
    assert metrics.psnr(a, a + 10) == pytest.approx(20 * math.log10(25.5))
    assert metrics.psnr(a, a) == 99.0
    with pytest.raises(ConfigError, match="shapes"):
        metrics.psnr(a, a[:1])


def test_psnr_of_boxes_sees_only_the_boxes() -> None:
    a = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    b = a.clone()
    b[:, 4:] = 255
    assert metrics.psnr_boxes(a, b, torch.tensor([[0, 0, 8, 4]])) == 99.0
    assert metrics.psnr_boxes(a, b, torch.tensor([[0, 4, 8, 8]])) == pytest.approx(0.0)


def test_colour_error_ignores_what_moves() -> None:
    frames = torch.full((6, 4, 4, 3), 50, dtype=torch.uint8)
    frames[:, 0, 0] = noise((6, 3))
    still = metrics.static_pixels(frames)
    assert not still[0, 0] and still.sum() == 15
    np.testing.assert_allclose(metrics.colour_error(frames + 4 * ~still[..., None], frames[0], still), 0)
    np.testing.assert_allclose(metrics.colour_error(frames[:2] + 3, frames[0], still), 3)
    assert np.isnan(metrics.colour_error(frames, frames[0], torch.zeros(4, 4, dtype=torch.bool))).all()


def test_blur_lowers_gradient_energy_and_keeps_cell_colours() -> None:
    sharp = noise((3, 32, 32, 3))
    soft = metrics.cell_colors(sharp).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (metrics.gradient_energy(soft) < 0.5 * metrics.gradient_energy(sharp)).all()
    torch.testing.assert_close(metrics.cell_colors(soft), metrics.cell_colors(sharp), rtol=0, atol=1e-3)


def test_slope_is_the_change_in_a_hundred_frames() -> None:
    assert metrics.slope(3 + 0.02 * np.arange(50)) == pytest.approx(2.0)
    assert math.isnan(metrics.slope(np.array([1.0, 2.0])))


def test_a_blink_counts_once_even_when_it_trembles() -> None:
    lids = np.array([0, 0.6, 0.45, 0.7, 1, 0.2, 0, 0, 0.4, 0, 0.9, 0.1])
    assert metrics.blinks(lids) == 2
    assert metrics.blinks(np.zeros(5)) == 0


def test_pauses_are_long_and_lose_their_edges() -> None:
    silent = np.zeros(60, bool)
    silent[2:8] = True  # 0.24 s: too short
    silent[20:40] = True
    silent[52:] = True  # 0.32 s: two frames are left
    assert np.flatnonzero(metrics.pauses(silent, 25.0)).tolist() == [*range(23, 37), 55, 56]


def test_calm_cells_are_those_that_do_not_change() -> None:
    frames = torch.full((6, 64, 64, 3), 50, dtype=torch.uint8)
    frames[:, :8] = torch.arange(0, 240, 40, dtype=torch.uint8).view(6, 1, 1, 1)
    calm = metrics.calm_cells(frames)
    assert calm.shape == (16, 16) and not calm[:2].any() and calm[2:].all()


# intervals of means, ratios and trends


def test_bootstrap_covers_the_mean_and_shrinks_with_more_clips() -> None:
    x = np.random.default_rng(0).normal(5, 1, 400)
    few, many = bootstrap(x[:16]), bootstrap(x)
    assert 5 in many
    assert many.high - many.low < 0.5 * (few.high - few.low)
    # 2 * 1.96 * sd / sqrt(n), the interval of a normal distribution
    assert many.high - many.low == pytest.approx(3.92 * x.std() / 20, rel=0.1)


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
