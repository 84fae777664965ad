"""The one tone of a grey or sepia portrait, kept in what a network adds to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .nn.attention import without_autocast

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
ONE_TONE, COLOURED = 0.015, 0.04  # deviation from one tone, pictures in [-1, 1]: surely grey, surely coloured


@dataclass(frozen=True)
class Tone:
    """Colour as a quadratic function of brightness, and how far a picture obeys it: 1 one tone, 0 colours.

    curves (n, 3, 3): of colour channel and power; strength (n, 1, 1, 1). A coloured picture has `active=False`.
    """

    curves: Tensor
    strength: Tensor
    active: bool

    @classmethod
    def of(cls, pictures: Tensor) -> Tone:
        """Fitted by least squares to pictures (n, 3, h, w) in [-1, 1]."""
        with without_autocast(pictures.device.type):
            return cls._of(pictures.float())

    @classmethod
    def _of(cls, pictures: Tensor) -> Tone:
        luma, chroma = _split(pictures)
        powers = _powers(luma.flatten(1))  # (n, h w, 3)
        wanted = chroma.flatten(2).mT
        ridge = 1e-4 * torch.eye(3, device=pictures.device)
        curves = torch.linalg.solve(
            powers.mT @ powers / powers.shape[1] + ridge, powers.mT @ wanted / powers.shape[1]
        )
        deviation = (wanted - powers @ curves).square().mean((1, 2)).sqrt()
        strength = ((COLOURED - deviation) / (COLOURED - ONE_TONE)).clamp(0, 1).view(-1, 1, 1, 1)
        return cls(curves.mT.contiguous(), strength, bool((strength > 0).any()))

    def of_frames(self, part: slice) -> Tone:
        """That of some of the pictures."""
        return Tone(self.curves[part], self.strength[part], self.active)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, h, w) in this tone; those of a coloured portrait as they are."""
        if not self.active:
            return pictures
        luma, chroma = _split(pictures)
        count = len(pictures)
        powers = _powers(luma.flatten(1))
        with without_autocast(pictures.device.type):
            own = (powers @ self.curves.mT.expand(count, -1, -1)).mT.unflatten(2, pictures.shape[-2:])
        return luma[:, None] + torch.lerp(chroma, own, self.strength.expand(count, -1, -1, -1))


def _split(pictures: Tensor) -> tuple[Tensor, Tensor]:
    luma = (pictures * pictures.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1)
    return luma, pictures - luma[:, None]


def _powers(luma: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(luma), luma, luma * luma], dim=-1)
