from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from letstalk_core.networks.audio_encoder import AudioEncoder
from letstalk_core.networks.configs import AudioEncoderConfig

SMALL: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48},
    **{"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
}


def small(**changes: Any) -> AudioEncoder:
    """A tiny encoder with random weights."""
    torch.manual_seed(0)
    return AudioEncoder(AudioEncoderConfig(**{**SMALL, **changes})).eval()


@pytest.fixture
def tone() -> Callable[..., Tensor]:
    """A chirp-like tone with noise: (samples,)."""

    def make(seconds: float, rate: int = 16000, seed: int = 0) -> Tensor:
        time = torch.arange(round(seconds * rate)) / rate
        noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
        return 0.4 * torch.sin(6.283 * (200 + 40 * time) * time) + 0.05 * noise * torch.sin(3 * time) ** 2

    return make
