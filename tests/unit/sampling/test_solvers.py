"""Solvers against closed forms: of Gaussian data the best denoiser and the solution are known exactly."""

from typing import Any

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.sampling import solvers
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
