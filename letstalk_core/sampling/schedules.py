"""Noise levels visited by a solver: pure functions that return decreasing sigmas ending in 0 (k-diffusion
convention).

Two families (docs/model.md, Diffusion). *Flow*: x = (1 - sigma) x0 + sigma n, sigma in [0, 1], model time = 1000
sigma. *Diffusion* (prediction epsilon or v): x = x0 + sigma n, sigma from the DDPM table, model time = step number
in the table.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ConfigError
from ..networks.configs import PREDICTIONS, DiTConfig

TRAIN_STEPS = 1000
BETA_FIRST, BETA_LAST = 1e-4, 2e-2
FLOW_SIGMA_MIN = 1 / TRAIN_STEPS


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= TRAIN_STEPS:
        raise ConfigError(f"steps={steps} must be between 1 and {TRAIN_STEPS}")


def ddpm_alphas_cumprod() -> Tensor:
    """The table of linear betas 1e-4..2e-2. Shapes: -> (1000,) float64, decreasing.

    Source: paper (arXiv 2411.16748).
    """
    betas = torch.linspace(BETA_FIRST, BETA_LAST, TRAIN_STEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0)


def ddpm_table() -> Tensor:
    """Sigma of each training step, sqrt((1 - a) / a). Shapes: -> (1000,) float64, increasing, 0.01 to 157."""
    alphas = ddpm_alphas_cumprod()
    return ((1 - alphas) / alphas).sqrt()


def sigma_to_step(sigma: Tensor) -> Tensor:
    """Training step of a DDPM sigma, linear in log sigma between table entries, clamped to the table.

    Shapes: any -> the same.
    """
    logs = ddpm_table().log()
    value = sigma.cpu().double().clamp_min(1e-10).log()  # on the CPU: some devices have no float64
    high = torch.searchsorted(logs, value.contiguous()).clamp(1, TRAIN_STEPS - 1)
    low = high - 1
    fraction = ((value - logs[low]) / (logs[high] - logs[low])).clamp(0, 1)
    return (low + fraction).to(sigma)


def step_to_sigma(step: Tensor) -> Tensor:
    """Inverse of `sigma_to_step` for steps in [0, 999]; float64, on the CPU."""
    logs = ddpm_table().log()
    step = step.cpu().double()
    low = step.floor().long().clamp(0, TRAIN_STEPS - 2)
    return torch.lerp(logs[low], logs[low + 1], step - low).exp()


def flow_sigmas(steps: int, shift: float = 1.0) -> Tensor:
    """Evenly spaced sigmas from 1 to 0, then sigma' = shift * sigma / (1 + (shift - 1) * sigma).

    A shift above 1 spends more steps at high noise. Shapes: -> (steps + 1,) float32. Source: Esser et al. 2024,
    sec. 5.3.2. Raises: ConfigError.
    """
    _check_steps(steps)
    if not (math.isfinite(shift) and shift > 0):
        raise ConfigError(f"shift={shift} must be a positive number; 1 is the plain schedule")
    sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return (shift * sigmas / (1 + (shift - 1) * sigmas)).float()


def ddpm_sigmas(steps: int) -> Tensor:
    """Sigmas of `steps` training steps spread evenly from the last one to the first, then 0.

    Shapes: -> (steps + 1,) float32. Source: Nichol & Dhariwal 2021, sec. 4 (both ends of the table are kept).
    """
    _check_steps(steps)
    taken = torch.linspace(TRAIN_STEPS - 1, 0, steps, dtype=torch.float64).round().long()
    return torch.cat([ddpm_table()[taken], torch.zeros(1, dtype=torch.float64)]).float()


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Sigmas evenly spaced in sigma**(1/rho), then 0. Shapes: -> (steps + 1,) float32. Source: Karras et al.

    2022, eq. 5.
    """
    _check_steps(steps)
    if not 0 < sigma_min < sigma_max:
        raise ConfigError(
            f"sigma_min={sigma_min} and sigma_max={sigma_max} must satisfy 0 < sigma_min < sigma_max"
        )
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)]).float()


def default_shift(config: DiTConfig) -> float:
    """The model's own shift, counted over the levels that it works at: those of the residual if it scales one."""
    if config.prediction != "flow":
        return 1.0
    return config.shift * (config.residual_scale if config.portrait_residual else 1.0)


def default_steps(config: DiTConfig) -> int:
    """The model's own number of steps, or what is usual for what it predicts."""
    return config.steps or (12 if config.prediction == "flow" else 30)


def make_sigmas(prediction: str, steps: int, shift: float = 1.0, *, schedule: str = "model") -> Tensor:
    """Sigmas for a model of this prediction type: its own schedule ("model") or "karras" over the same range.

    Shapes: -> (steps + 1,) float32, strictly decreasing, last is 0. `shift` is read by the flow schedule only.
    Raises: ConfigError.
    """
    if prediction not in PREDICTIONS:
        raise ConfigError(f"prediction={prediction!r} must be one of {list(PREDICTIONS)}")
    if schedule not in ("model", "karras"):
        raise ConfigError(f"schedule={schedule!r} must be 'model' or 'karras'")
    if prediction == "flow":
        return flow_sigmas(steps, shift) if schedule == "model" else karras_sigmas(steps, FLOW_SIGMA_MIN, 1.0)
    if shift != 1.0:
        raise ConfigError(f"shift={shift} is for flow models only; this model predicts {prediction}")
    if schedule == "model":
        return ddpm_sigmas(steps)
    table = ddpm_table()
    return karras_sigmas(steps, table[0].item(), table[-1].item())
