"""Projection of a window of audio-encoder states to the audio tokens of one video frame (docs/model.md, Audio)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..protocols import Device, DType
from .configs import AudioProjectionConfig
from .motion_channels import units
from .nn.layers import Layers


class AudioProjection(nn.Module):
    """Three linears and a norm; trained and saved together with the denoiser.

    Shapes: windows (b, f, window, layers, encoder_dim) -> tokens (b, f, tokens, token_dim).
    With movement channels in its config, two more linears make tokens of movement (`movement_of`).
    Raises: ConfigError for windows of another shape. Source: paper (arXiv 2411.16748); docs/model.md, Motion.
    """

    def __init__(
        self, config: AudioProjectionConfig, *, operations: Any = nn, device: Device = None, dtype: DType = None
    ) -> None:
        super().__init__()
        self.config, layers = config, Layers(operations, device, dtype)
        inputs, hidden = config.window * config.layers * config.encoder_dim, config.hidden_size
        self.linear_1 = layers.linear(inputs, hidden)
        self.linear_2 = layers.linear(hidden, hidden)
        self.linear_3 = layers.linear(hidden, config.tokens * config.token_dim)
        self.norm = layers.layer_norm(config.token_dim)
        if config.movement:
            width = config.movement_tokens * config.token_dim
            self.movement_1 = layers.linear(len(config.movement), hidden)
            self.movement_2 = layers.linear(hidden, width)

    def init_weights(self) -> None:
        """Fill every weight: Xavier, zero biases, the norm as the identity.

        Tokens of movement start as large as those of the audio, which are normed: attention learns nothing of
        small ones.
        """
        if self.config.movement:
            nn.init.normal_(self.movement_1.weight)
            nn.init.normal_(self.movement_2.weight, std=2 / math.sqrt(self.config.hidden_size))
            nn.init.zeros_(self.movement_1.bias)
            nn.init.zeros_(self.movement_2.bias)
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
        return self.norm(self.linear_3(x).unflatten(-1, (config.tokens, config.token_dim)))

    def movement_of(self, rows: Tensor, dtype: DType = None) -> Tensor | None:
        """Movement (b, f, channels) as `Movement.rows` gives it -> tokens (b, f, movement_tokens, token_dim).

        `dtype` is what to compute in: that of the weights, unless those are cast when used. None if the network is
        told no movement. Raises: ConfigError for other channels.
        """
        config = self.config
        if not config.movement:
            return None
        if rows.ndim != 3 or rows.shape[-1] != len(config.movement):
            raise ConfigError(
                f"movement: has shape {list(rows.shape)}, needs (b, f, {len(config.movement)}):"
                f" {', '.join(config.movement)}"
            )
        size = torch.tensor(units(config.movement), device=rows.device)
        x = (rows.float() / size).to(dtype or self.movement_1.weight.dtype)
        x = F.silu(self.movement_1(x))
        tokens: Tensor = self.movement_2(x).unflatten(-1, (config.movement_tokens, config.token_dim))
        return tokens.float()
