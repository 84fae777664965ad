"""Pictures and recordings, bundled or uploaded, as ComfyUI's IMAGE, MASK and AUDIO."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...letstalk_core.media.audio.decode import load_sound
from ...letstalk_core.media.portrait.image import load_with_alpha
from ...letstalk_core.pixels import from_bytes
from .folders import resolve_input

__all__ = ["load_audio", "load_image"]


def load_image(name: str) -> tuple[Tensor, Tensor]:
    """IMAGE (1, h, w, 3), and MASK (1, h, w) that is 1 where the picture is transparent, as LoadImage gives them.

    The mask editor saves what was painted as transparency, so the colours under it stay. Raises: MediaError.
    """
    path = resolve_input("portrait", name)
    image, alpha = load_with_alpha(path, background=None)
    mask = torch.zeros(64, 64) if alpha is None else 1 - from_bytes(alpha)
    return from_bytes(image)[None], mask[None]


def load_audio(name: str) -> dict[str, Any]:
    """AUDIO of the whole file at its own rate, mono or stereo. Raises: MediaError."""
    waveform, sample_rate = load_sound(resolve_input("speech", name))
    return {"waveform": waveform[None], "sample_rate": sample_rate}
