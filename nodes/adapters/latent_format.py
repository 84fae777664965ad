"""How ComfyUI sees latents of a LetsTalk model: already in model space, with colours for previews if known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.latent_formats

from ...letstalk_core.errors import CheckpointError
from ...letstalk_core.networks.checkpoint import read_header
from ...letstalk_core.networks.configs import AutoencoderConfig


class LetsTalkLatentFormat(comfy.latent_formats.LatentFormat):
    """Clips (b, c, t, h, w) in model space: the VAE applies the autoencoder's factor, so none is left here."""

    latent_dimensions = 3
    scale_factor = 1.0
    spacial_downscale_ratio = 32  # this and the next are read by newer cores only
    temporal_downscale_ratio = 1
    latent_rgb_factors: Any = None  # ComfyUI's class knows None alone
    latent_rgb_factors_bias: Any = None

    def set_colours(self, factors: Sequence[Sequence[float]], bias: Sequence[float]) -> None:
        """Preview colours: rgb in -1..1 = latents @ factors (c, 3) + bias (3). Other numbers of channels do
        nothing, for a preview is not worth an error.
        """
        if len(factors) == self.latent_channels:
            self.latent_rgb_factors = [list(row) for row in factors]
            self.latent_rgb_factors_bias = list(bias) or None


def autoencoder_beside(path: Path, latent_channels: int) -> AutoencoderConfig | None:
    """The config of `autoencoder.safetensors` in the folder of a DiT, where model folders keep it, if it fits."""
    try:
        _, config = read_header(path.with_name("autoencoder.safetensors")).part("autoencoder")
    except CheckpointError:
        return None
    return config if config.latent_channels == latent_channels else None
