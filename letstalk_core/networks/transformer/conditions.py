"""What the denoiser is told about a clip besides the noise: the portrait, the speech, and what came before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...protocols import Device, DType

__all__ = ["Conditions"]


@dataclass(frozen=True)
class Conditions:
    """Conditions of one clip in model space: latents are already multiplied by the autoencoder's scaling factor.

    portrait: (b, c, h, w) latent. audio: (b, f, k, da) tokens of each frame. memory: (b, m, c, h, w), m >= 0.
    movement: (b, f, n, da) tokens of each frame, for networks conditioned on motion; never left out.
    A condition that is left out is zeros of the same shape, in training and in guidance alike.
    """

    portrait: Tensor
    audio: Tensor
    memory: Tensor
    movement: Tensor | None = None

    def to(self, device: Device = None, dtype: DType = None) -> Conditions:
        """The same conditions on another device or in another dtype."""
        return Conditions(**{k: t.to(device=device, dtype=dtype) for k, t in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by the names under which a network takes them."""
        return {k: t for k, t in vars(self).items() if t is not None}

    @staticmethod
    def concatenate(parts: Sequence[Conditions]) -> Conditions:
        """One batch out of several, in order: guidance runs its variants in one forward pass."""
        tensors = [part.tensors() for part in parts]
        return Conditions(**{name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})
