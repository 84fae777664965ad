"""What the denoiser is told about a clip besides the noise: the portrait, the speech, and what came before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..protocols import Device, DType

__all__ = ["Conditions"]


@dataclass(frozen=True)
class Conditions:
    """Conditions of one clip in model space: latents are already multiplied by the autoencoder's scaling factor.

    portrait: (b, c, h, w) latent. audio: (b, f, k, da) tokens of each frame. memory: (b, m, c, h, w), m >= 0.
    A condition that is left out is zeros of the same shape, in training and in guidance alike.
    """

    portrait: Tensor
    audio: Tensor
    memory: Tensor

    def without_audio(self) -> Conditions:
        return replace(self, audio=torch.zeros_like(self.audio))

    def without_portrait(self) -> Conditions:
        return replace(self, portrait=torch.zeros_like(self.portrait))

    def without_memory(self) -> Conditions:
        return replace(self, memory=torch.zeros_like(self.memory))

    def to(self, device: Device = None, dtype: DType = None) -> Conditions:
        """The same conditions on another device or in another dtype."""
        portrait, audio, memory = (
            t.to(device=device, dtype=dtype) for t in (self.portrait, self.audio, self.memory)
        )
        return Conditions(portrait, audio, memory)

    @staticmethod
    def concatenate(parts: Sequence[Conditions]) -> Conditions:
        """One batch out of several, in order: guidance runs its variants in one forward pass."""
        return Conditions(
            torch.cat([p.portrait for p in parts]),
            torch.cat([p.audio for p in parts]),
            torch.cat([p.memory for p in parts]),
        )
