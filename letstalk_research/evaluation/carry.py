"""How much better frames are with the portrait's detail carried along, and how steady."""

from __future__ import annotations

import torch
from torch import Tensor

from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.carry import Carry, CarryReference
from letstalk_core.pixels import to_unit

from ..training.losses import psnr, region_psnr

__all__ = ["carry_quality"]

NOISE = 0.15  # on latents where steadiness is measured, in deviations: what a denoiser leaves


@torch.no_grad()
def carry_quality(
    carry: Carry, autoencoder: AutoencoderDC, pairs: dict[str, Tensor], seed: int = 1
) -> dict[str, float]:
    """Pairs (see `data.pairs`) through the autoencoder, plain and carried.

    "psnr", "psnr_mouth", "psnr_eyes" in dB of carried frames, the same with "plain_" before it; "flicker" and
    "plain_flicker": rms error, in 8-bit steps, of the difference of neighbouring frames whose latents had noise of
    their own. The images of a person without boxes count in "psnr" only.
    """
    device = next(autoencoder.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {}
    for i in range(len(pairs["frames"])):
        frames = to_unit(pairs["frames"][i].to(device))
        portrait, boxes = to_unit(pairs["portraits"][i : i + 1].to(device)), pairs["regions"][i]
        latents = autoencoder.encode(torch.cat([frames, portrait])).float()
        noise = torch.randn(latents[:2].shape, generator=generator).to(device)
        noisy = latents[:2] + NOISE * latents[:2].std() * noise
        pictures = autoencoder.decode(torch.cat([latents, noisy])).float().clamp(-1, 1)
        clean, again, disturbed = pictures[:2], pictures[2:3], pictures[3:]
        reference = carry.prepare(portrait, again)
        for prefix, network in (("plain_", _same), ("", carry)):
            result = network(clean, reference)
            found.setdefault(f"{prefix}psnr", []).extend(psnr(result, frames).tolist())
            for part, index in (("mouth", [0]), ("eyes", [1, 2])):
                found.setdefault(f"{prefix}psnr_{part}", []).extend(region_psnr(result, frames, boxes, index))
            first, second = network(disturbed, reference) - frames
            rms = (second - first).square().mean().sqrt() * 127.5
            found.setdefault(f"{prefix}flicker", []).append(float(rms))
    return {k: sum(v) / len(v) for k, v in found.items() if v}


def _same(frames: Tensor, reference: CarryReference) -> Tensor:
    return frames
