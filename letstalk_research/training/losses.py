"""Losses of the training stages: of images and latents, and of what the denoiser is asked to predict.

The denoiser predicts rectified flow, v, or epsilon with an optional learned variance, and its memory is disturbed
as inference will. Source: docs/model.md, Diffusion, Memory bank; Esser et al. 2024, sec. 3.1 (logit-normal
timesteps); Salimans & Ho 2022, app. D (v); Nichol & Dhariwal 2021, eq. 15 and sec. 3.1 (learned variance). The
disturbance of pixels before encoding happens when clips are encoded (`letstalk encode --noisy-copies`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from letstalk_core.sampling.schedules import TRAIN_STEPS, ddpm_alphas_cumprod


def region_weights(
    regions: Tensor, weights: Sequence[float], height: int, width: int, *, softness: float
) -> Tensor:
    """Weight of each pixel: 1 outside the boxes, `weights[i]` inside box i, with an edge `softness` pixels wide.

    Where boxes overlap the largest weight counts. A box without area is ignored.
    Shapes: regions (b, r, 4) x0 y0 x1 y1 -> (b, 1, height, width).
    """
    boxes = regions.float()
    x0, y0, x1, y1 = (rearrange(v, "b r -> b r 1") for v in boxes.unbind(-1))
    x = torch.arange(width, device=boxes.device) + 0.5
    y = torch.arange(height, device=boxes.device) + 0.5
    soft = max(softness, 1e-3)
    across = torch.minimum((x - x0) / soft + 0.5, (x1 - x) / soft + 0.5).clamp(0, 1)
    down = torch.minimum((y - y0) / soft + 0.5, (y1 - y) / soft + 0.5).clamp(0, 1)
    known = ((x1 > x0) & (y1 > y0)).float()
    extra = torch.tensor([w - 1 for w in weights], device=boxes.device).view(1, -1, 1)
    inside = rearrange(down * known * extra, "b r h -> b r h 1") * rearrange(across, "b r w -> b r 1 w")
    return 1 + reduce(inside, "b r h w -> b 1 h w", "max").clamp(min=0)


def weighted_l1(error: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute error with the weights scaled to mean 1. Shapes: error (b, c, h, w), weights (b, 1, h, w)."""
    return (error.abs() * weights).mean() / weights.mean()


def gradient_l1(error: Tensor, weights: Tensor) -> Tensor:
    """Weighted L1 of the error's finite differences along rows and columns: sharpness of edges."""
    across = (error[..., 1:] - error[..., :-1]).abs() * weights[..., 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weights[..., 1:, :]
    return (across.mean() + down.mean()) / weights.mean()


def multiscale_l1(error: Tensor, factors: Sequence[int] = (4, 16)) -> Tensor:
    """L1 of the error averaged over blocks: colours and shading, which the pixel-wise term learns last."""
    return torch.stack([F.avg_pool2d(error, f).abs().mean() for f in factors]).sum()


def latent_regulariser(latents: Tensor) -> Tensor:
    """Squared distance of each channel's mean from 0 and variance from 1. Shapes: (b, c, h, w) -> scalar."""
    channels = rearrange(latents.float(), "b c h w -> c (b h w)")
    variance, mean = torch.var_mean(channels, dim=1, correction=0)
    return (mean.square() + (variance - 1).square()).mean()


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]. Shapes: (b, c, h, w) -> (b,)."""
    error = reduce((prediction.float() - target.float()).square(), "b c h w -> b", "mean")
    return -10 * torch.log10(error / 4 + 1e-10)


def region_psnr(prediction: Tensor, target: Tensor, regions: Tensor, index: Sequence[int]) -> list[float]:
    """PSNR inside the boxes `index` of each image; images whose boxes have no area are left out."""
    values = []
    for image in range(prediction.shape[0]):
        errors = []
        for box in index:
            x0, y0, x1, y1 = (max(0, int(v)) for v in regions[image, box])
            difference = prediction[image, :, y0:y1, x0:x1].float() - target[image, :, y0:y1, x0:x1].float()
            if difference.numel():
                errors.append(difference.square().mean())
        if errors:
            values.append(float(-10 * torch.log10(torch.stack(errors).mean() / 4 + 1e-10)))
    return values


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


def mask_positions(memory: Tensor, ratio: float, probability: float = 1.0) -> Tensor:
    """Zero a random share of the spatial positions, the same in all frames of a sample; see (iii).

    Exactly round(ratio * h * w) positions, in the share `probability` of samples. Shapes: (b, m, c, h, w) -> same.
    """
    b, _, _, h, w = memory.shape
    order = torch.rand(b, h * w, device=memory.device).argsort(1).argsort(1)
    masked = order < round(ratio * h * w)
    masked &= torch.rand(b, 1, device=memory.device) < probability
    return memory.masked_fill(rearrange(masked, "b (h w) -> b 1 1 h w", h=h), 0.0)


def disturb_memory(
    memory: Tensor,
    *,
    keep: int = 0,
    ddpm_steps: int = 50,
    sigma: float = 0.0,
    mask: float = 0.25,
    mask_probability: float = 1.0,
) -> Tensor:
    """Disturb all memory frames but the first `keep`, which inference never samples (the portrait as anchor).

    ddpm_steps: DDPM noise at a step drawn below this, one for all frames of a sample; see (ii). sigma: noise
    sqrt(1 - s^2) x + s n of a level s drawn from 0..sigma, as `MemorySettings.noise_sigma`. mask: see
    `mask_positions`.
    Shapes: (b, m, c, h, w) -> same.
    """
    kept, frames = memory[:, :keep], memory[:, keep:]
    if not frames.shape[1]:
        return memory
    b = len(memory)
    if ddpm_steps:
        alphas = ddpm_alphas_cumprod().to(memory.device, memory.dtype)
        alpha = alphas[torch.randint(ddpm_steps, (b,), device=memory.device)].view(b, 1, 1, 1, 1)
        frames = alpha.sqrt() * frames + (1 - alpha).sqrt() * torch.randn_like(frames)
    if sigma:
        level = (sigma * torch.rand(b, device=memory.device)).view(b, 1, 1, 1, 1)
        frames = (1 - level**2).sqrt() * frames + level * torch.randn_like(frames)
    if mask and mask_probability:
        frames = mask_positions(frames, mask, mask_probability)
    return torch.cat([kept, frames], 1)
