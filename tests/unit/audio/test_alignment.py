from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio import alignment

fps_values = st.sampled_from([10.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0])


@given(seconds=st.floats(0, 1e5), fps=fps_values)
def test_frame_count_is_the_nearest_whole_number_and_at_least_one(seconds: float, fps: float) -> None:
    frames = alignment.frame_count(seconds, fps)
    assert frames >= 1
    assert frames == 1 or abs(frames - seconds * fps) <= 0.5


@given(frame=st.integers(0, 10**7), fps=fps_values)
def test_a_frame_is_shown_at_its_own_start(frame: int, fps: float) -> None:
    assert alignment.frame_at(frame / fps, fps) == frame


@given(frames=st.integers(1, 500), steps=st.integers(1, 1000), data=st.data())
def test_positions_of_a_part_are_those_of_the_whole(frames: int, steps: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, frames - 1))
    whole = alignment.frame_positions(0, frames, frames, steps)
    assert torch.equal(alignment.frame_positions(first, frames - first, frames, steps), whole[first:])
    assert whole[0] == 0 and whole.max() <= steps - 1 + 1e-6


@pytest.mark.parametrize(("frames", "steps"), [(1, 7), (10, 23), (50, 7), (3, 1)])
def test_positions_are_those_of_interpolation_with_aligned_corners(frames: int, steps: int) -> None:
    ramp = torch.arange(float(steps)).reshape(1, 1, -1)
    expected = torch.nn.functional.interpolate(ramp, size=frames, mode="linear", align_corners=True)[0, 0]
    torch.testing.assert_close(alignment.frame_positions(0, frames, frames, steps).float(), expected)


@given(n=st.integers(1, 30), first=st.integers(0, 40), count=st.integers(1, 20), half=st.integers(0, 4))
def test_windows_are_centred_on_their_frames_and_repeat_the_ends(
    n: int, first: int, count: int, half: int
) -> None:
    states = torch.arange(float(n)).reshape(n, 1, 1)
    windows = alignment.window_states(states, first, count, 2 * half + 1)
    assert windows.shape == (count, 2 * half + 1, 1, 1)
    for i in range(count):
        for j in range(-half, half + 1):
            assert windows[i, j + half] == min(max(first + i + j, 0), n - 1)


def test_states_are_resampled_linearly_with_equal_ends() -> None:
    states = torch.arange(5.0).reshape(5, 1, 1).expand(5, 2, 3)
    found = alignment.resample_states(states, 9)
    assert found.shape == (9, 2, 3)
    torch.testing.assert_close(found[:, 1, 2], torch.arange(9) / 2)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_impossible_lengths_and_frame_rates_are_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match="seconds="):
        alignment.frame_count(bad, 25)
    for fps in (bad, 0.0):
        with pytest.raises(ConfigError, match="fps="):
            alignment.frame_count(1.0, fps)


@pytest.mark.parametrize(
    ("shape", "count", "window"), [((0, 1, 1), 1, 5), ((4, 1), 1, 5), ((4, 1, 1), 0, 5), ((4, 1, 1), 1, 4)]
)
def test_impossible_windows_and_shapes_are_refused(shape: tuple[int, ...], count: int, window: int) -> None:
    with pytest.raises(ConfigError):
        alignment.window_states(torch.zeros(shape), 0, count, window)
    with pytest.raises(ConfigError, match="n, layers, d"):
        alignment.resample_states(torch.zeros(4, 4), 2)
