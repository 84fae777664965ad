"""Solvers in k-diffusion's calling convention: `sample_x(model, x, sigmas, extra_args=None, callback=None)`.

`model(x, sigma, **extra_args)` returns the denoised sample D. For both noise paths of `schedules` the
probability-flow equation is dx/dsigma = (x - D) / sigma (for flow, (x - D) / sigma is the velocity n - x0), so
Euler, Heun and DPM++ 2M below serve flow, epsilon and v models alike and agree with ComfyUI's samplers of the same
names. DPM++ 2M extrapolates D in -log sigma, which is exact variation of constants for this equation on either
path; the half log-SNR of the flow path, log((1 - sigma) / sigma), would only change that coordinate, and it is
infinite at the first sigma of 1.

`callback` gets {"x", "i", "sigma", "denoised"} once per step, before the step is taken.
Shapes: x (b, ...) noise already scaled to sigmas[0] -> the same shape; sigmas (steps + 1,), decreasing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Optional

import torch
from torch import Tensor

from ..errors import ConfigError
from ..protocols import Denoiser

Solver = Callable[..., Tensor]
Args = Optional[dict[str, Any]]
Callback = Optional[Callable[[dict[str, Any]], None]]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def _report(callback: Callback, x: Tensor, i: int, sigma: Tensor, denoised: Tensor) -> None:
    if callback is not None:
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})


@torch.no_grad()
def sample_euler(
    model: Denoiser, x: Tensor, sigmas: Tensor, extra_args: Args = None, callback: Callback = None
) -> Tensor:
    """First order, one model call per step. Source: Karras et al. 2022, alg. 1 without the correction."""
    args = extra_args or {}
    ones = x.new_ones([x.shape[0]])
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = model(x, sigma * ones, **args)
        _report(callback, x, i, sigma, denoised)
        x = x + (following - sigma) * (x - denoised) / sigma
    return x


@torch.no_grad()
def sample_heun(
    model: Denoiser, x: Tensor, sigmas: Tensor, extra_args: Args = None, callback: Callback = None
) -> Tensor:
    """Second order, two model calls per step (one in the step to 0). Source: Karras et al. 2022, alg. 1."""
    args = extra_args or {}
    ones = x.new_ones([x.shape[0]])
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = model(x, sigma * ones, **args)
        _report(callback, x, i, sigma, denoised)
        slope = (x - denoised) / sigma
        predicted = x + (following - sigma) * slope
        if following > 0:  # the equation is singular at 0, so the last step stays Euler's
            slope_there = (predicted - model(predicted, following * ones, **args)) / following
            x = x + (following - sigma) * (slope + slope_there) / 2
        else:
            x = predicted
    return x


@torch.no_grad()
def sample_dpmpp_2m(
    model: Denoiser, x: Tensor, sigmas: Tensor, extra_args: Args = None, callback: Callback = None
) -> Tensor:
    """Second-order multistep, one model call per step. Source: Lu et al. 2022, "DPM-Solver++", alg. 2."""
    args = extra_args or {}
    ones = x.new_ones([x.shape[0]])
    previous: Tensor | None = None
    last_h = sigmas.new_zeros(())
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = model(x, sigma * ones, **args)
        _report(callback, x, i, sigma, denoised)
        h = sigma.log() - following.log()  # infinite in the step to 0
        target = denoised
        if previous is not None and following > 0:
            target = denoised + (h / (2 * last_h)) * (denoised - previous)
        ratio = following / sigma
        x = ratio * x + (1 - ratio) * target
        previous, last_h = denoised, h
    return x


@torch.no_grad()
def sample_ddpm(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Args = None,
    callback: Callback = None,
    *,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Ancestral sampling from the DDPM posterior of the visited steps: the paper's sampler, for diffusion models
    only.

    If the model offers `with_variance(x, sigma, **extra_args) -> (denoised, fraction)`, the variance lies at that
    fraction, in logarithm, between the posterior variance (0) and beta (1), as learned; otherwise it is the
    posterior variance. `noise_sampler(sigma, next)` returns unit noise like x; by default torch's global generator
    is used.
    Source: Ho et al. 2020, eq. 6-7; Nichol & Dhariwal 2021, eq. 15.
    """
    args = extra_args or {}
    check_solver("ddpm", getattr(model, "prediction", None) or "epsilon")
    with_variance = getattr(model, "with_variance", None)
    draw = noise_sampler or (lambda sigma, following: torch.randn_like(x))
    ones = x.new_ones([x.shape[0]])
    # Cumulative products: x * sqrt(alpha) has unit variance.
    alphas = [1 / (1 + sigma**2) for sigma in sigmas.tolist()]
    for i, sigma in enumerate(sigmas[:-1]):
        fraction: Tensor | None = None
        if with_variance is not None:
            denoised, fraction = with_variance(x, sigma * ones, **args)
        else:
            denoised = model(x, sigma * ones, **args)
        _report(callback, x, i, sigma, denoised)
        a, following = alphas[i], alphas[i + 1]
        alpha = a / following  # of this single, possibly long, step
        mean_x0 = math.sqrt(following) * (1 - alpha) / (1 - a)
        mean_x = math.sqrt(alpha) * (1 - following) / (1 - a)
        mean = mean_x0 * denoised + mean_x * math.sqrt(a) * x
        if following < 1:
            small, large = math.log((1 - alpha) * (1 - following) / (1 - a)), math.log(1 - alpha)
            noise = draw(sigma, sigmas[i + 1])
            if fraction is None:
                mean = mean + math.exp(small / 2) * noise
            else:
                mean = mean + ((small + fraction * (large - small)) / 2).exp() * noise
        x = mean / math.sqrt(following)
    return x


SOLVERS: dict[str, Solver] = {
    "euler": sample_euler,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
    "ddpm": sample_ddpm,
}
STOCHASTIC = frozenset({"ddpm"})


def get_solver(name: str) -> Solver:
    """The solver of this name. Raises: ConfigError naming the known ones."""
    if name not in SOLVERS:
        raise ConfigError(f"solver={name!r} is unknown; known are {list(SOLVERS)}")
    return SOLVERS[name]


def check_solver(name: str, prediction: str) -> None:
    """Raises: ConfigError unless the solver of this name exists and can sample what such a model predicts."""
    get_solver(name)
    if name in STOCHASTIC and prediction == "flow":
        raise ConfigError(
            f"solver={name!r} needs an epsilon or v model, this is a flow model; use euler, heun or dpmpp_2m"
        )
