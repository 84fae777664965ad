"""Noise-regularised memory: training disturbs what the bank returns as inference will.

Source: docs/model.md, Memory bank.

The disturbance of pixels before encoding, (i) there, happens when clips are encoded (`letstalk encode
--noisy-copies`).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from letstalk_core.sampling.schedules import ddpm_alphas_cumprod

__all__ = ["disturb_memory", "mask_positions"]


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
