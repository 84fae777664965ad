import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_core.sampling import schedules


@given(
    prediction=st.sampled_from(["flow", "epsilon", "v"]),
    steps=st.integers(1, 300),
    schedule=st.sampled_from(["model", "karras"]),
)
def test_every_schedule_decreases_strictly_and_ends_at_zero(prediction: str, steps: int, schedule: str) -> None:
    sigmas = schedules.make_sigmas(prediction, steps, schedule=schedule)
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float32
    assert sigmas[-1] == 0 and (sigmas.diff() < 0).all() and torch.isfinite(sigmas).all()


def test_ddpm_table_is_that_of_diffusers() -> None:
    from diffusers import DDPMScheduler

    alphas = DDPMScheduler(1000, beta_start=1e-4, beta_end=2e-2, beta_schedule="linear").alphas_cumprod
    expected = ((1 - alphas) / alphas).sqrt()
    torch.testing.assert_close(
        schedules.ddpm_table().float(), expected, rtol=2e-3, atol=1e-4
    )  # diffusers multiplies in float32


def test_ddpm_sigmas_keep_both_ends_of_the_table() -> None:
    sigmas, table = schedules.ddpm_sigmas(250), schedules.ddpm_table().float()
    assert sigmas[0] == table[-1] and sigmas[-2] == table[0]
    torch.testing.assert_close(schedules.ddpm_sigmas(1000)[:-1].flip(0), table)


@given(step=st.floats(0, 999))
def test_steps_and_sigmas_are_inverse(step: float) -> None:
    value = torch.tensor([step], dtype=torch.float64)
    torch.testing.assert_close(schedules.sigma_to_step(schedules.step_to_sigma(value)), value, atol=1e-6, rtol=0)


def test_sigmas_outside_the_table_are_clamped() -> None:
    torch.testing.assert_close(schedules.sigma_to_step(torch.tensor([0.0, 1e6])), torch.tensor([0.0, 999.0]))


@pytest.mark.parametrize(
    ("prediction", "steps", "shift", "message"),
    [
        *(("flow", steps, 1.0, f"steps={steps}") for steps in (0, -1, 1001)),
        *(("flow", 10, shift, "shift") for shift in (0.0, -1.0, float("nan"))),
        ("epsilon", 10, 3.0, "flow models only"),
    ],
)
def test_impossible_schedules_are_refused(prediction: str, steps: int, shift: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedules.make_sigmas(prediction, steps, shift=shift)
