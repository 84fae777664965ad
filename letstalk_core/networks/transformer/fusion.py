"""How conditions enter the denoiser (docs/model.md, Fusion schemes): direct, siamese or symbiotic.

direct:    each block attends to the condition's tokens, the same ones in every block.
siamese:   a stack of blocks without timestep runs on the condition; block i attends to those of its block i.
symbiotic: the condition's tokens are carried beside those of each frame through the blocks' spatial attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..configs import DiTConfig
from ..nn.attention import Attend, KeyValue, TemporalAttention, softmax_attention
from ..nn.feed_forward import GLUMBConv
from ..nn.layers import PLAIN, Layers
from .blocks import layer_norm, mix_feed_forward, spatial_attention


@dataclass(frozen=True)
class EncodedConditions:
    """What the blocks need of the conditions; the same at every sampling step of a clip.

    memory: (b, m, n, d) tokens. carried: (b, f, r, d) tokens beside each frame, or None.
    contexts: for each block, the keys and values of the conditions that enter by cross-attention.
    """

    memory: Tensor
    carried: Tensor | None
    contexts: tuple[Mapping[str, KeyValue], ...]


def context_widths(config: DiTConfig) -> dict[str, int]:
    """Width of the tokens of each condition that enters by cross-attention, in the order of reading."""
    widths = {}
    if config.portrait_fusion != "symbiotic":
        widths["portrait"] = config.hidden_size
    if config.audio_fusion != "symbiotic":
        widths["audio"] = config.audio_token_dim if config.audio_fusion == "direct" else config.hidden_size
    return widths


class SiameseBlock(nn.Module):
    """A block of the denoiser without timestep, memory and contexts: its norms have weights of their own."""

    def __init__(self, config: DiTConfig, *, temporal: bool, layers: Layers = PLAIN) -> None:
        super().__init__()
        dim = config.hidden_size
        hidden = round(dim * config.mlp_ratio)
        self.temporal = temporal
        if temporal:
            self.temporal_norm = layers.layer_norm(dim)
            self.temporal_attention = TemporalAttention(dim, config.num_heads, layers=layers)
            self.temporal_out = layers.linear(dim, dim)
        self.spatial_norm = layers.layer_norm(dim)
        self.spatial_attention = spatial_attention(config, layers=layers)
        self.feed_forward_norm = layers.layer_norm(dim)
        self.feed_forward = GLUMBConv(dim, hidden, layers=layers)

    def forward(self, x: Tensor, grid: tuple[int, int], attend: Attend = softmax_attention) -> Tensor:
        """x (b, t, n, d), n tokens on a grid -> the same shape."""
        if self.temporal:
            x = x + self.temporal_out(self.temporal_attention(self.temporal_norm(x), attend))
        x = x + self.spatial_attention(self.spatial_norm(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        return x + mix_feed_forward(self.feed_forward, self.feed_forward_norm(x), grid)


class SiameseBranch(nn.Module):
    """A stack as deep as the denoiser that runs on a condition. One still image has no time to attend to."""

    def __init__(self, config: DiTConfig, *, temporal: bool, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SiameseBlock(config, temporal=temporal, layers=layers) for _ in range(config.depth)
        )

    def forward(self, x: Tensor, grid: tuple[int, int], attend: Attend = softmax_attention) -> list[Tensor]:
        """x (b, t, n, d) -> for each block its tokens, normed so that contexts of all depths are of one size."""
        outputs = []
        for block in self.blocks:
            x = block(x, grid, attend)
            outputs.append(layer_norm(x))
        return outputs


def beside(parts: list[Tensor], frames: int) -> Tensor | None:
    """Tokens (b, 1 or f, r, d) of several conditions as one set (b, f, sum of r, d); None without any."""
    expanded = [part.expand(-1, frames, -1, -1) for part in parts]
    if not expanded:
        return None
    return expanded[0] if len(expanded) == 1 else torch.cat(expanded, dim=2)
