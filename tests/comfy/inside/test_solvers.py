"""The core's solvers and Karras schedule against the k-diffusion in ComfyUI, on a nonlinear denoiser.

Both work in float32 in another order of operations: 2e-5 of the range of values.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import comfy.k_diffusion.sampling as k_diffusion
import pytest
import torch

SCHEDULES = ("karras", "flow", "one step")


@pytest.fixture
def make(sub: Any) -> Any:
    """make(schedule) -> sigmas; make.solver(name) -> the core's."""
    schedules, solvers = sub("letstalk_core.sampling.schedules"), sub("letstalk_core.sampling.solvers")

    def sigmas(name: str) -> torch.Tensor:
        table = schedules.ddpm_table()
        return {
            "karras": lambda: schedules.karras_sigmas(12, float(table[0]), float(table[-1])),
            "flow": lambda: schedules.flow_sigmas(12, 3.0),
            "one step": lambda: torch.tensor([14.6, 0.0]),
        }[name]()

    return SimpleNamespace(sigmas=sigmas, solver=solvers.get_solver, karras=schedules.karras_sigmas)


def denoise(x: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
    """Far from linear in x, and another function at each level."""
    return torch.tanh(x / (1 + sigma.view(-1, 1, 1))) * torch.cos(x.roll(1, -1) / (2 + sigma.view(-1, 1, 1)))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
def test_solver_equals_k_diffusion(make: Any, solver: str, schedule: str) -> None:
    sigmas = make.sigmas(schedule)
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(4)) * sigmas[0]
    expected = getattr(k_diffusion, f"sample_{solver}")(denoise, x.clone(), sigmas, disable=True)
    torch.testing.assert_close(make.solver(solver)(denoise, x.clone(), sigmas), expected, rtol=1e-4, atol=2e-5)


def test_solvers_differ_from_one_another_here(make: Any) -> None:
    """So that the comparison above can fail."""
    sigmas = make.sigmas("karras")
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(4)) * sigmas[0]
    made = [make.solver(name)(denoise, x.clone(), sigmas) for name in ("euler", "heun", "dpmpp_2m")]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(made) for b in made[:i])


@pytest.mark.parametrize("rho", [7.0, 3.0])
def test_karras_schedule_equals_k_diffusion(make: Any, rho: float) -> None:
    expected = k_diffusion.get_sigmas_karras(9, 0.03, 14.6, rho)
    torch.testing.assert_close(make.karras(9, 0.03, 14.6, rho), expected, rtol=1e-5, atol=1e-6)
