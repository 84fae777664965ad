"""Steady motion: the frames of a clip continue those before it, and neighbours do not jitter.

A clip's first frame is rarely quite where the last one of the clip before was going, and a head that is a quarter
of a pixel off at every seam twitches. For frames whose lips and lids are not the denoiser's to draw
(`media.puppet`); theirs would be smoothed away.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FADE = 10  # frames at most over which the offset at a seam goes away
PASSES = 2  # of a mean over three frames


def steady(latents: Tensor, before: Tensor | None = None) -> Tensor:
    """A clip (b, f, c, h, w) that goes on where the frames `before` it (b, m, c, h, w) went, and moves smoothly.

    Its last frame stays as it is, so the next clip can be steadied by this one as it was sampled.
    """
    count = latents.shape[1]
    if count < 2:
        return latents
    out = latents
    if before is not None:
        before = before.to(latents)
        last, way = before[:, -1], latents[:, 1] - latents[:, 0]
        if before.shape[1] > 1:
            way = (way + last - before[:, -2]) / 2
        offset = latents[:, :1] - (last + way)[:, None]
        length = min(FADE, count - 1)
        fade = [0.5 + 0.5 * math.cos(math.pi * min(i / length, 1)) for i in range(count)]
        out = latents - offset * torch.tensor(fade).to(latents).view(1, -1, 1, 1, 1)
    for _ in range(PASSES):
        row = out if before is None else torch.cat([before[:, -1:], out], 1)
        middle = (row[:, :-2] + 2 * row[:, 1:-1] + row[:, 2:]) / 4
        out = torch.cat([out[:, : 1 if before is None else 0], middle, out[:, -1:]], 1)
    return out
