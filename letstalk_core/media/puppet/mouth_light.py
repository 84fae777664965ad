"""Light at a mouth: the whites of the eyes tell, and the skin around."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .fields import Head
from .geometry import axis_grid, sample, smooth_step
from .topology import CHEEKS, NASOLABIAL

GREY, COLOURED = 0.006, 0.018  # of the light: how far colours of a face differ where its light does not
PLACES = 28  # along a side of the face


def mouth_light(head: Head, texture: Tensor, opening: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colour of a white thing (b, 3), its change to the right (b,), and the colour of teeth (b, 3).

    texture (b, 3, T, T); opening (b, T, T): 1 where an eye is open.
    """
    inside = (opening > 0.8).flatten(1)
    light = texture.mean(1).flatten(1)
    level = torch.where(inside, light, torch.full_like(light, float("nan"))).nanquantile(0.8, 1, keepdim=True)
    bright = (inside & (light >= level)).float()[:, None]
    count = bright.sum(-1)
    white = (texture.flatten(2) * bright).sum(-1) / count.clamp(min=1)
    white = torch.where(count > 3, white, torch.full_like(white, 0.66))
    mean = white.mean(1, keepdim=True)
    colour = 0.5 * white / mean.clamp(min=0.05) + 0.5
    # Deep eyes lie in shadow: teeth are never darker than the skin beside the mouth.
    at = head.points[:, [i for ids in NASOLABIAL for i in ids[1:]] + list(CHEEKS), None, :2]
    colours = sample(F.avg_pool2d(texture, 5, 1, 2), at)[..., 0]
    skin = colours.mean(1)  # (b, k)
    left, right = skin[:, 4:8].mean(1), skin[:, :4].mean(1)
    level = torch.maximum(1.2 * mean, 1.25 * skin.mean(1, keepdim=True)).clamp(0.40, 0.88)
    # Teeth by the teeth of 60 portraits that smile in all lights
    lit = (skin >= skin.quantile(0.75, 1, keepdim=True)).float()
    brightest = ((skin * lit).sum(1) / lit.sum(1))[:, None]
    teeth = (mean.clamp(min=0.03) ** 0.19 * brightest.clamp(min=0.03) ** 0.29).clamp(max=0.92)
    by_white, by_skin = (c.clamp(min=0.02) / c[:, 1:2].clamp(min=0.02) for c in (white, colours.mean(2)))
    tint = by_white ** white.new_tensor([0.19, 0, 0.27]) * by_skin ** white.new_tensor([0.16, 0, 0.19])
    tint = tint * white.new_tensor([1, 1, 0.96])
    slope = (0.5 * (left - right) / (left + right).clamp(min=0.1)).clamp(-0.3, 0.3)
    return colour * level, slope, teeth * tint / tint.mean(1, keepdim=True)


def colourfulness(head: Head, texture: Tensor) -> Tensor:
    """(b,): 1 for faces in colour, 0 for grey ones and those in one tint, whose colour follows from the light.

    texture (b, 3, T, T).
    """
    middle, half = head.middle[:, None, None, :2], head.half[:, None, None, :2]
    places = middle + half * axis_grid(PLACES, 0.8, texture.device)
    colours = sample(F.avg_pool2d(texture, 5, 1, 2), places).flatten(2)  # (b, 3, n)
    light = colours.mean(1)
    known = torch.stack([light**k for k in range(3)], -1)
    told = colours.new_tensor([[1.0, -1.0, 0.0], [-0.5, -0.5, 1.0]]) @ colours
    system = known.mT @ known + 1e-4 * torch.eye(3, device=texture.device)
    follows = (known @ torch.linalg.solve(system, known.mT @ told.mT)).mT
    apart = (told - follows).square().mean(2).sum(1).sqrt() / light.mean(1).clamp(min=0.05)
    return smooth_step(GREY, COLOURED, apart)
