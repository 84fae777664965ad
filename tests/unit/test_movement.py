"""Movement that is drawn at random: ranges, reproducibility, and the way into the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_core.networks.configs import AudioProjectionConfig
from letstalk_core.networks.motion_channels import GAZE_LIMIT, MOVEMENTS, SWAY, units
from letstalk_core.networks.projection import AudioProjection
from letstalk_core.networks.transformer.dit import LetsTalkDiT
from letstalk_core.sampling.denoisers import make_denoiser
from letstalk_core.sampling.guidance import GuidedDenoiser
from letstalk_core.sampling.motion import Movement

HOUR = 90_000  # frames


def column(rows: torch.Tensor, name: str) -> np.ndarray:
    return rows[:, MOVEMENTS.index(name)].numpy()


@given(
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, HOUR),
    count=st.integers(1, 300),
    cut=st.integers(0, 300),
    fps=st.sampled_from((24.0, 25.0, 29.97, 60.0)),
)
@settings(deadline=None, max_examples=40)
def test_any_part_is_a_part_of_the_whole(seed: int, first: int, count: int, cut: int, fps: float) -> None:
    cut = min(cut, count)
    whole = Movement(MOVEMENTS, seed=seed, fps=fps).rows(first, count)
    movement = Movement(MOVEMENTS, seed=seed, fps=fps)
    later = movement.rows(first + cut, count - cut)  # out of order on purpose
    assert torch.equal(torch.cat([movement.rows(first, cut), later]), whole)


def test_ranges_over_an_hour() -> None:
    rows = Movement(MOVEMENTS, seed=3).rows(0, HOUR)
    assert rows.shape == (HOUR, len(MOVEMENTS)) and rows.dtype == torch.float32
    for name, limit in SWAY.items():
        found = column(rows, name)
        assert abs(found).max() <= limit + 1e-6 and found.std() > 0.2 * limit, name
        assert abs(np.diff(found)).max() < 0.2 * limit, f"{name} jumps"
    assert abs(column(rows, "gaze_x")).max() <= GAZE_LIMIT
    assert abs(column(rows, "gaze_y")).max() <= 0.6 * GAZE_LIMIT
    assert 0.05 < abs(column(rows, "smile")).max() <= 0.2


@pytest.mark.parametrize("seed", range(5))
def test_a_video_begins_at_the_portrait(seed: int) -> None:
    rows = Movement(MOVEMENTS, seed=seed).rows(0, 26)
    assert not rows[0].any()
    assert column(rows[:13], "yaw").std() < column(Movement(MOVEMENTS, seed=seed).rows(0, 500), "yaw").std()


@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0, 60.0])
def test_eyes_blink_as_often_as_people_do(fps: float) -> None:
    lids = column(Movement(MOVEMENTS, seed=1, fps=fps).rows(0, round(600 * fps)), "blink")
    starts = np.flatnonzero((lids[1:] > 0.9) & (lids[:-1] <= 0.9)) / fps
    assert 14 < len(starts) / 10 < 20
    assert 1.9 < np.diff(starts).min() and np.diff(starts).max() < 5.2
    assert (lids > 0).mean() < 0.1


def test_seeds_differ_and_amount_scales_the_head_but_not_the_lids() -> None:
    usual, other, still, half = (
        Movement(MOVEMENTS, seed=seed, amount=amount).rows(0, 500)
        for seed, amount in ((5, 1.0), (6, 1.0), (5, 0.0), (5, 0.5))
    )
    assert all(not np.allclose(column(usual, name), column(other, name)) for name in MOVEMENTS)
    assert all(not column(still, name).any() for name in MOVEMENTS if name != "blink")
    assert np.allclose(column(half, "yaw"), 0.5 * column(usual, "yaw"))
    assert np.array_equal(column(still, "blink"), column(usual, "blink"))


def test_channels_come_in_the_order_asked_for() -> None:
    every = Movement(MOVEMENTS, seed=2).rows(7, 50)
    some = Movement(("yaw", "blink"), seed=2).rows(7, 50)
    assert torch.equal(some, every[:, [MOVEMENTS.index("yaw"), MOVEMENTS.index("blink")]])
    assert Movement((), seed=2).rows(0, 9).shape == (9, 0)


@pytest.mark.parametrize("amount", [-0.1, 2.1, float("nan"), float("inf")])
def test_amounts_and_channels_that_are_none_are_refused(amount: float) -> None:
    with pytest.raises(ConfigError, match="movement="):
        Movement(MOVEMENTS, seed=0, amount=amount)
    with pytest.raises(ConfigError, match="'nose'"):
        units(("yaw", "nose"))
    with pytest.raises(ConfigError, match="'jaw'"):  # lips follow the speech
        AudioProjectionConfig(movement=("jaw",))


@pytest.fixture
def projection() -> AudioProjection:
    torch.manual_seed(0)
    shape = {"layers": 1, "encoder_dim": 8, "hidden_size": 8, "tokens": 2, "token_dim": 12}
    told = AudioProjection(AudioProjectionConfig(**shape, movement=("yaw", "blink", "scale")))
    for weight in told.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return told.eval()


@torch.no_grad()
def test_network_sees_movement_and_keeps_it_where_guidance_leaves_out_the_audio(
    make_dit: Callable[..., LetsTalkDiT],
    make_inputs: Callable[..., dict[str, torch.Tensor]],
    projection: AudioProjection,
) -> None:
    plain, inputs = make_denoiser(make_dit()), make_inputs(batch=1)
    inputs |= {"sigma": torch.full((1,), 0.7), "audio": projection(torch.randn(1, 5, 5, 1, 8))}
    del inputs["timestep"]
    left, right = (projection.movement_of(torch.tensor([yaw, 0.0, 1.0]).expand(1, 5, 3)) for yaw in (-0.4, 0.4))
    assert left is not None and right is not None and left.shape == (1, 5, 2, 12)
    moved = plain(**inputs, movement=left)
    assert not torch.allclose(moved, plain(**inputs, movement=right))
    assert not torch.allclose(moved, plain(**inputs))
    deaf = plain(**{**inputs, "audio": torch.zeros_like(inputs["audio"])}, movement=left)
    guided = GuidedDenoiser(plain, 2.0)(**inputs, movement=left)
    torch.testing.assert_close(guided, 2 * moved - deaf, atol=1e-4, rtol=1e-4)


def test_without_channels_there_are_no_tokens_and_weights(projection: AudioProjection) -> None:
    told, silent = projection, AudioProjection(dataclasses.replace(projection.config, movement=()))
    assert silent.movement_of(torch.zeros(1, 3, 0)) is None
    assert {k for k in told.state_dict() if "movement" in k} == set(told.state_dict()) - set(silent.state_dict())
    with pytest.raises(ConfigError, match="yaw, blink, scale"):
        told.movement_of(torch.zeros(1, 3, 2))
