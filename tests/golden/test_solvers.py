"""Solvers and schedules against diffusers' schedulers, step by step on a denoiser that is nonlinear in x.

Tables of diffusers are multiplied up in float32, ours in float64: 1e-3 relative on sigmas at the ends. Comparisons
of solvers therefore hand the sigmas of diffusers to both.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from letstalk_core.sampling.schedules import flow_sigmas, karras_sigmas, make_sigmas, sigma_to_step
from letstalk_core.sampling.solvers import sample_ddpm, sample_dpmpp_2m, sample_euler, sample_heun

diffusers = pytest.importorskip("diffusers")
TABLE: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear"}
SHAPE = (2, 3, 4)


def denoise(x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
    """Some clean sample that depends on all of x and on sigma."""
    level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(x / (1 + level)) * 0.8 + 0.1 * torch.cos(x.roll(1, -1) / (1 + level))


def run_theirs(scheduler: Any, x: Tensor, velocity: bool) -> Tensor:
    """Sample with a diffusers scheduler whose model predicts noise, (x - D) / sigma: the velocity of flow, too."""
    for t in scheduler.timesteps:
        if not velocity:
            scheduler.scale_model_input(x, t)  # finds the step
        sigma = scheduler.sigmas[scheduler.step_index or 0].double()
        x = scheduler.step((x - denoise(x, sigma)) / sigma, t, x).prev_sample
    return x


def start(sigmas: Tensor) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64) * sigmas[0]


@pytest.mark.parametrize("karras", [False, True], ids=["table", "karras"])
@pytest.mark.parametrize(
    ("solver", "theirs"), [(sample_euler, "EulerDiscreteScheduler"), (sample_heun, "HeunDiscreteScheduler")]
)
def test_euler_and_heun_equal_diffusers(solver: Any, theirs: str, karras: bool) -> None:
    scheduler = getattr(diffusers, theirs)(1000, **TABLE, use_karras_sigmas=karras)
    scheduler.set_timesteps(12)
    sigmas = torch.unique_consecutive(scheduler.sigmas)  # Heun's list names every inner sigma twice
    assert len(sigmas) == 13
    x = start(sigmas)
    torch.testing.assert_close(
        solver(denoise, x, sigmas.double()), run_theirs(scheduler, x, False), rtol=1e-5, atol=1e-5
    )


def test_flow_heun_equals_diffusers() -> None:
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler(1000)
    scheduler.set_timesteps(8)
    sigmas = torch.unique_consecutive(scheduler.sigmas)
    x = start(sigmas)
    theirs = run_theirs(scheduler, x.float(), True)
    torch.testing.assert_close(
        sample_heun(denoise, x, sigmas.double()).float(), theirs.float(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("karras", [False, True], ids=["table", "karras"])
def test_dpmpp_2m_equals_diffusers(karras: bool) -> None:
    """DPM-Solver++ works on x * sqrt(alpha) there; the last step is of first order in both."""
    scheduler = diffusers.DPMSolverMultistepScheduler(
        1000, **TABLE, use_karras_sigmas=karras, algorithm_type="dpmsolver++", solver_order=2,
        solver_type="midpoint", final_sigmas_type="zero", lower_order_final=True, prediction_type="sample",
    )  # fmt: skip
    scheduler.set_timesteps(14)
    sigmas = scheduler.sigmas.double()
    x = start(sigmas)
    found = sample_dpmpp_2m(denoise, x, sigmas)
    theirs = x / (1 + sigmas[0] ** 2).sqrt()
    for i, t in enumerate(scheduler.timesteps):
        clean = denoise(theirs * (1 + sigmas[i] ** 2).sqrt(), sigmas[i])
        theirs = scheduler.step(clean, t, theirs).prev_sample
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.33])
def test_flow_schedule_and_euler_equal_diffusers(shift: float) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(1000, shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 9)[:-1].tolist())
    sigmas = flow_sigmas(8, shift)
    torch.testing.assert_close(sigmas, scheduler.sigmas, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(sigmas[:-1] * 1000, scheduler.timesteps, rtol=1e-6, atol=1e-4)
    x = start(sigmas)
    found = sample_euler(denoise, x, scheduler.sigmas.double())
    theirs = run_theirs(scheduler, x.float(), True)  # this scheduler keeps samples in float32
    torch.testing.assert_close(found.float(), theirs.float(), rtol=1e-4, atol=1e-5)


def test_karras_sigmas_equal_diffusers() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(
        1000, **TABLE, use_karras_sigmas=True, timestep_spacing="linspace"
    )
    scheduler.set_timesteps(20)
    found = make_sigmas("epsilon", 20, schedule="karras")
    torch.testing.assert_close(found, scheduler.sigmas, rtol=2e-3, atol=0)
    theirs = scheduler._convert_to_karras(torch.tensor([14.6, 0.03]).numpy(), 11)
    torch.testing.assert_close(karras_sigmas(11, 0.03, 14.6)[:-1].double(), torch.as_tensor(theirs).double())
    # the training step of a sigma between two of the table, as the scheduler finds it
    steps = sigma_to_step(scheduler.sigmas[:-1])
    torch.testing.assert_close(steps.float(), scheduler.timesteps.float(), rtol=0, atol=0.6)


@pytest.mark.parametrize(("steps", "learned"), [(25, True), (250, True), (25, False)])
def test_ancestral_sampling_equals_diffusers(steps: int, learned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    variance = "learned_range" if learned else "fixed_small"
    scheduler = diffusers.DDPMScheduler(
        1000, **TABLE, clip_sample=False, variance_type=variance, prediction_type="sample"
    )
    taken = torch.linspace(999, 0, steps, dtype=torch.float64).round().long()
    scheduler.set_timesteps(timesteps=taken.tolist())
    alphas = scheduler.alphas_cumprod.double()
    draws = torch.randn(steps, *SHAPE, dtype=torch.float64)
    sigmas = torch.cat([((1 - alphas[taken]) / alphas[taken]).sqrt(), torch.zeros(1, dtype=torch.float64)])

    def raw_variance(x: Tensor, sigma: Tensor | float) -> Tensor:
        """What a network would give in -1..1, another place for every value."""
        return torch.sin(3 * x / (1 + torch.as_tensor(sigma).reshape(-1, *[1] * (x.ndim - 1))))

    class Learned:
        prediction = "epsilon"

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            return denoise(x, sigma)

        def with_variance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            return denoise(x, sigma), (raw_variance(x, sigma) + 1) / 2

    noise = iter(draws)
    x = torch.randn(SHAPE, dtype=torch.float64)
    wide = x * (1 + sigmas[0] ** 2).sqrt()
    found = sample_ddpm(
        Learned() if learned else denoise, wide, sigmas, noise_sampler=lambda sigma, following: next(noise)
    )

    from diffusers.schedulers import scheduling_ddpm

    noise = iter(draws)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(noise))
    for i, step in enumerate(taken.tolist()):
        full = x * (1 + sigmas[i] ** 2).sqrt()
        output = [denoise(full, sigmas[i])] + [raw_variance(full, sigmas[i])] * learned
        x = scheduler.step(torch.cat(output, dim=1), step, x).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
