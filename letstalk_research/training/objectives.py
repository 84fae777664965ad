"""What the denoiser is asked to predict: rectified flow, v, or epsilon with an optional learned variance.

Source: docs/model.md, Diffusion; Esser et al. 2024, sec. 3.1 (logit-normal timesteps); Salimans & Ho 2022, app. D
(v); Nichol & Dhariwal 2021, eq. 15 and sec. 3.1 (learned variance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from letstalk_core.sampling.schedules import TRAIN_STEPS, ddpm_alphas_cumprod

__all__ = ["NoisySample", "add_noise", "draw_times", "variance_bound"]


@dataclass(frozen=True)
class NoisySample:
    """x (b, f, c, h, w) noisy, target of its shape, timestep (b,) as the network reads it, level (b,) in 0..1."""

    x: Tensor
    target: Tensor
    timestep: Tensor
    level: Tensor


def draw_times(count: int, device: torch.device, *, mean: float, std: float, uniform: float) -> Tensor:
    """Times in (0, 1]: logit-normal, and uniform in the share `uniform` of samples. Shapes: -> (count,)."""
    normal = torch.sigmoid(mean + std * torch.randn(count, device=device))
    flat = torch.rand(count, device=device)
    chosen = torch.rand(count, device=device) < uniform
    return torch.where(chosen, 1 - flat, normal).clamp(min=1e-3)


def add_noise(clean: Tensor, noise: Tensor, time: Tensor, prediction: str) -> NoisySample:
    """Noisy sample and target. `time` (b,) in (0, 1] is sigma for flow, the place in the DDPM table otherwise."""
    wide = (-1, *[1] * (clean.ndim - 1))
    if prediction == "flow":
        sigma = time.view(wide)
        return NoisySample((1 - sigma) * clean + sigma * noise, noise - clean, time * TRAIN_STEPS, time)
    step = (time * TRAIN_STEPS).long().clamp(max=TRAIN_STEPS - 1)
    alpha = ddpm_alphas_cumprod().to(clean.device, torch.float32)[step].view(wide)
    x = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    target = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    return NoisySample(x, target, step.float(), time)


def variance_bound(clean: Tensor, noisy: NoisySample, epsilon: Tensor, variance: Tensor) -> Tensor:
    """The step's term of the variational bound in bits per number, whose gradient trains the variance alone.

    variance: raw output in about -1..1, the place between the smallest and largest possible log variance. At step
    0, where the posterior is a point, the term is the Gaussian likelihood. Shapes: all (b, f, c, h, w) -> (b,).
    """
    wide = (-1, *[1] * (clean.ndim - 1))
    alphas = ddpm_alphas_cumprod()
    previous = torch.cat([torch.ones(1, dtype=alphas.dtype), alphas[:-1]])
    betas = 1 - alphas / previous
    posterior = betas * (1 - previous) / (1 - alphas)
    posterior[0] = posterior[1]  # the posterior at step 0 has no variance; its log is cut as in the source
    step = noisy.timestep.long()

    def at(table: Tensor) -> Tensor:
        return table.to(clean.device, torch.float32)[step].view(wide)

    log_true, log_beta = at(posterior.log()), at(betas.log())
    share = (variance.float() + 1) / 2
    log_model = share * log_beta + (1 - share) * log_true
    estimate = (noisy.x - (1 - at(alphas)).sqrt() * epsilon.detach().float()) / at(alphas).sqrt()
    coefficient = at(betas * previous.sqrt() / (1 - alphas))
    mean_difference = coefficient * (clean - estimate)  # both posterior means share their second term
    precision = torch.exp(-log_model)
    kl = 0.5 * (log_model - log_true + torch.exp(log_true - log_model) + mean_difference**2 * precision - 1)
    likelihood = 0.5 * (math.log(2 * math.pi) + log_model + (clean - estimate) ** 2 * precision)
    terms = torch.where((step == 0).view(wide), likelihood, kl)
    return terms.flatten(1).mean(1) / math.log(2)
