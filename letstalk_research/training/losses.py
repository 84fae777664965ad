"""Losses of the training stages: weighted reconstruction of images, pull of latents to a normal scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

__all__ = [
    "gradient_l1",
    "latent_regulariser",
    "multiscale_l1",
    "psnr",
    "region_psnr",
    "region_weights",
    "weighted_l1",
]


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
