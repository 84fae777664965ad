"""Schedules, and solvers against closed forms: of Gaussian data denoiser and solution are known exactly."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.sampling import schedules, solvers
from letstalk_core.sampling.schedules import ddpm_sigmas, flow_sigmas

MEAN, STD = 0.7, 0.4


def gaussian_flow(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    """E[x0 | x] for x = (1 - s) x0 + s n, x0 ~ N(MEAN, STD^2)."""
    s = sigma.view(-1, 1)
    return MEAN + (1 - s) * STD**2 / ((1 - s) ** 2 * STD**2 + s**2) * (x - (1 - s) * MEAN)


def gaussian_diffusion(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    """E[x0 | x] for x = x0 + s n."""
    s = sigma.view(-1, 1)
    return MEAN + STD**2 / (STD**2 + s**2) * (x - MEAN)


def exact_flow(x: Tensor, start: float, end: float) -> Tensor:
    """The probability-flow equation moves x - mean in proportion to the standard deviation at each sigma."""

    def deviation(s: float) -> float:
        return float(((1 - s) ** 2 * STD**2 + s**2) ** 0.5)

    return (1 - end) * MEAN + deviation(end) / deviation(start) * (x - (1 - start) * MEAN)


def exact_diffusion(x: Tensor, start: float, end: float) -> Tensor:
    return MEAN + ((STD**2 + end**2) / (STD**2 + start**2)) ** 0.5 * (x - MEAN)


PATHS = {
    "flow": (gaussian_flow, exact_flow, 1.0, 0.05),
    "diffusion": (gaussian_diffusion, exact_diffusion, 8.0, 0.1),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("solver", "order"),
    [(solvers.sample_euler, 1), (solvers.sample_heun, 2), (solvers.sample_dpmpp_2m, 2)],
    ids=["euler", "heun", "dpmpp_2m"],
)
def test_solvers_converge_with_their_order_on_both_paths(solver: Any, order: int, path: str) -> None:
    model, exact, first, last = PATHS[path]
    x = torch.tensor([[1.3], [-2.0]], dtype=torch.float64) * max(first, 1)

    def error(steps: int) -> float:
        ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        sigmas = first * (last / first) ** ramp  # stops above 0, where the order is defined
        return float((solver(model, x, sigmas) - exact(x, first, last)).abs().max())

    measured = torch.log2(torch.tensor(error(80) / error(160))).item()
    assert measured == pytest.approx(order, abs=0.2)


def test_callback_sees_every_step_with_its_sigma() -> None:
    seen: list[tuple[int, float]] = []
    sigmas = flow_sigmas(5)
    for solver in (solvers.sample_euler, solvers.sample_heun, solvers.sample_dpmpp_2m):
        seen.clear()
        solver(
            gaussian_flow, torch.ones(1, 1), sigmas, callback=lambda s: seen.append((s["i"], float(s["sigma"])))
        )
        assert seen == list(enumerate(sigmas[:-1].tolist()))


def test_extra_arguments_reach_the_model() -> None:
    def model(x: Tensor, sigma: Tensor, *, offset: float) -> Tensor:
        assert sigma.shape == (x.shape[0],)
        return torch.full_like(x, offset)

    for solver in solvers.SOLVERS.values():
        result = solver(model, torch.randn(2, 3), flow_sigmas(4), extra_args={"offset": 0.25})
        torch.testing.assert_close(result, torch.full((2, 3), 0.25))


def test_ddpm_samples_have_the_mean_and_deviation_of_the_data() -> None:
    sigmas = ddpm_sigmas(100)
    torch.manual_seed(0)
    x = torch.randn(20_000, 1) * (1 + sigmas[0] ** 2).sqrt()
    samples = solvers.sample_ddpm(gaussian_diffusion, x, sigmas)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(STD, abs=0.03)  # 100 of 1000 steps lose a little variance


def test_ddpm_refuses_flow_models() -> None:
    class Flow:
        prediction = "flow"

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x

    with pytest.raises(ConfigError, match="flow"):
        solvers.sample_ddpm(Flow(), torch.ones(1, 1), flow_sigmas(2))


def test_an_unknown_solver_is_named() -> None:
    with pytest.raises(ConfigError, match="'magic'.*euler"):
        solvers.get_solver("magic")


# schedules


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
