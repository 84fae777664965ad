import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_core.sampling.schedules import (
    ddpm_sigmas,
    ddpm_table,
    flow_sigmas,
    karras_sigmas,
    make_sigmas,
    sigma_to_step,
    step_to_sigma,
)


@given(
    prediction=st.sampled_from(["flow", "epsilon", "v"]),
    steps=st.integers(1, 300),
    schedule=st.sampled_from(["model", "karras"]),
)
def test_every_schedule_decreases_strictly_and_ends_at_zero(prediction: str, steps: int, schedule: str) -> None:
    sigmas = make_sigmas(prediction, steps, schedule=schedule)
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float32
    assert sigmas[-1] == 0 and (sigmas.diff() < 0).all() and torch.isfinite(sigmas).all()


@given(steps=st.integers(2, 100), shift=st.floats(0.2, 12))
def test_flow_shift_is_the_published_formula_and_keeps_the_ends(steps: int, shift: float) -> None:
    plain, shifted = flow_sigmas(steps).double(), flow_sigmas(steps, shift)
    expected = shift * plain / (1 + (shift - 1) * plain)
    torch.testing.assert_close(shifted.double(), expected, atol=1e-5, rtol=1e-4)  # both were rounded to float32
    assert shifted[0] == 1 and shifted[-1] == 0


def test_flow_sigmas_without_shift_are_even() -> None:
    torch.testing.assert_close(flow_sigmas(4), torch.tensor([1, 0.75, 0.5, 0.25, 0]))


def test_ddpm_table_is_that_of_diffusers() -> None:
    from diffusers import DDPMScheduler

    alphas = DDPMScheduler(1000, beta_start=1e-4, beta_end=2e-2, beta_schedule="linear").alphas_cumprod
    expected = ((1 - alphas) / alphas).sqrt()
    torch.testing.assert_close(
        ddpm_table().float(), expected, rtol=2e-3, atol=1e-4
    )  # diffusers multiplies in float32


def test_ddpm_sigmas_keep_both_ends_of_the_table() -> None:
    sigmas, table = ddpm_sigmas(250), ddpm_table().float()
    assert sigmas[0] == table[-1] and sigmas[-2] == table[0]
    torch.testing.assert_close(ddpm_sigmas(1000)[:-1].flip(0), table)


def test_karras_sigmas_touch_both_ends() -> None:
    sigmas = karras_sigmas(10, 0.1, 10.0)
    torch.testing.assert_close(sigmas[[0, -2]], torch.tensor([10.0, 0.1]))


@given(step=st.floats(0, 999))
def test_steps_and_sigmas_are_inverse(step: float) -> None:
    value = torch.tensor([step], dtype=torch.float64)
    torch.testing.assert_close(sigma_to_step(step_to_sigma(value)), value, atol=1e-6, rtol=0)


def test_sigmas_outside_the_table_are_clamped() -> None:
    torch.testing.assert_close(sigma_to_step(torch.tensor([0.0, 1e6])), torch.tensor([0.0, 999.0]))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match=f"steps={steps}"):
        make_sigmas("flow", steps)


def test_a_shift_is_refused_for_diffusion_models() -> None:
    with pytest.raises(ConfigError, match="flow models only"):
        make_sigmas("epsilon", 10, shift=3.0)


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan")])
def test_an_impossible_shift_is_refused(shift: float) -> None:
    with pytest.raises(ConfigError, match="shift"):
        flow_sigmas(10, shift)
