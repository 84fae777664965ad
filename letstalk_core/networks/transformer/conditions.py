"""What the denoiser is told about a clip besides the noise: the portrait, the speech, and what came before."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by the names under which a network takes them."""
        return {k: t for k, t in vars(self).items() if t is not None}
