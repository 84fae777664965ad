"""Light at a mouth: the whites of the eyes tell, and the skin around."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .fields import Head
from .geometry import sample
from .topology import CHEEKS, NASOLABIAL


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
