"""Carry from several pictures of one person: every place of a frame takes its detail from the picture that fits.

Each picture is matched with the frame and brings its own detail (`carry`). How well it fits is the difference that
the warp leaves, averaged over a neighbourhood, so an open mouth comes from a picture with an open one, shut lids
from one with shut lids, and hair from whichever is like it. Weights change with the frame and with nothing else:
any part of a video, made at any time, gets the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .carry import AT_ONCE, Carry, CarryMaps, CarryReference, Layers, lay_over
from .flow import grow, shrink, warp

POWER, LEAST = 2, 1e-4  # of the weight of a difference; squared differences, in [-1, 1], that are noise
HANDICAP = 2.0  # of all but the first picture, which mostly fits best: frames flicker less
WINDOW = 5  # pixels of the working size, averaged over twice


def carry_from(
    carry: Carry, frames: Tensor, references: Sequence[CarryReference], layers: Layers | None = None
) -> Tensor:
    """Frames (n, 3, h, w) in [-1, 1] with the detail of one or more pictures, (n, 3, *size), float32.

    With one it is `carry` itself. Each costs as much as the first, in whose place `layers` are.
    Raises: ConfigError.
    """
    if len(references) == 1:
        return carry(frames, references[0], layers)
    result: list[Tensor] = []
    for part in frames.float().clamp(-1, 1).split(AT_ONCE):
        over = None if layers is None else layers[len(result) : len(result) + len(part)]
        own = carry.estimate(part, references[0], over)
        if own.shift is not None:  # the same head for all
            part, own = warp(part, grow(own.shift, (part.shape[-2], part.shape[-1]))), replace(own, shift=None)
        motion = None if over is None else over.motion(own.flow)
        maps = [own, *(carry.estimate(part, reference) for reference in references[1:])]
        weights = _weights(part, maps, references)
        for i in range(len(part)):
            total = torch.zeros(1, 3, *references[0].size, device=part.device)
            for reference, own, weight in zip(references, maps, weights, strict=True):
                mixed = carry.mix(part[i : i + 1], own[i : i + 1], reference)
                total.addcmul_(mixed, grow(weight[i : i + 1], reference.size))
            if over is not None and motion is not None:
                total = lay_over(total, over.pictures[i : i + 1], motion[i : i + 1])
            result.append(total.clamp_(-1, 1))
    return torch.cat(result)


def _weights(frames: Tensor, maps: Sequence[CarryMaps], references: Sequence[CarryReference]) -> Tensor:
    """How much of each picture goes into each place: (references, n, 1, h, w) at the working size, their sum 1."""
    misses = []
    for own, reference in zip(maps, references, strict=True):
        size = reference.parts.shape[-2], reference.parts.shape[-1]
        left = shrink(frames, size) - warp(reference.parts, grow(own.flow, size))[:, :3]
        misses.append(_mean(_mean(left.square().mean(1, keepdim=True))))
    weights = (torch.stack([misses[0], *(HANDICAP * miss for miss in misses[1:])]) + LEAST) ** -POWER
    return weights / weights.sum(0)


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (WINDOW // 2,) * 4, mode="replicate"), WINDOW, stride=1)
