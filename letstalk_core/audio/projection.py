"""Projection of a window of audio-encoder states to the audio tokens of one video frame (docs/model.md, Audio)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..configs import AudioProjectionConfig
from ..errors import ConfigError
from ..protocols import Device, DType, Operations

__all__ = ["AudioProjection"]


class AudioProjection(nn.Module):
    """Three linears and a norm; trained and saved together with the denoiser.

    Shapes: windows (b, f, window, layers, encoder_dim) -> tokens (b, f, tokens, token_dim).
    Raises: ConfigError for windows of another shape. Source: paper (arXiv 2411.16748).
    """

    def __init__(
        self,
        config: AudioProjectionConfig,
        *,
        operations: Operations = nn,
        device: Device = None,
        dtype: DType = None,
    ) -> None:
        super().__init__()
        self.config = config
        inputs, hidden = config.window * config.layers * config.encoder_dim, config.hidden_size
        self.linear_1 = operations.Linear(inputs, hidden, device=device, dtype=dtype)
        self.linear_2 = operations.Linear(hidden, hidden, device=device, dtype=dtype)
        self.linear_3 = operations.Linear(hidden, config.tokens * config.token_dim, device=device, dtype=dtype)
        self.norm = operations.LayerNorm(config.token_dim, device=device, dtype=dtype)

    def init_weights(self) -> None:
        """Fill every weight: Xavier, zero biases, the norm as the identity."""
        for layer in (self.linear_1, self.linear_2, self.linear_3):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.ones_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, windows: Tensor) -> Tensor:
        config = self.config
        needed = (config.window, config.layers, config.encoder_dim)
        if windows.ndim != 5 or tuple(windows.shape[2:]) != needed:
            raise ConfigError(
                f"audio windows: have shape {list(windows.shape)}, need (b, f, {', '.join(map(str, needed))});"
                " the audio encoder must be the one that the checkpoint was trained with"
            )
        x = F.relu(self.linear_1(windows.flatten(2)))
        x = F.relu(self.linear_2(x))
        tokens: Tensor = self.norm(self.linear_3(x).unflatten(-1, (config.tokens, config.token_dim)))
        return tokens
