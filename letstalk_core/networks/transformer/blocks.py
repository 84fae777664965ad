"""Blocks of the denoiser (docs/model.md, Denoiser): temporal, condition and spatial attention, then Mix-FFN."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs import DiTConfig
from ..nn.attention import (
    Attend,
    CrossAttention,
    KeyValue,
    LinearAttention,
    SoftmaxAttention,
    TemporalAttention,
    softmax_attention,
)
from ..nn.feed_forward import GLUMBConv
from ..nn.inplace import add_residual
from ..nn.layers import PLAIN, Layers

NORM_EPS = 1e-6


def layer_norm(x: Tensor) -> Tensor:
    """Layer norm of the last dimension, without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Norm, then scale and shift: LN(x) * (1 + scale) + shift; one pass where the batch shares one of each."""
    if shift.numel() == x.shape[-1]:
        weight, bias = (1 + scale).flatten().to(x.dtype), shift.flatten().to(x.dtype)  # autocast mixes them
        return F.layer_norm(x, x.shape[-1:], weight, bias, NORM_EPS)
    return torch.addcmul(shift, layer_norm(x), 1 + scale)


def spatial_attention(config: DiTConfig, layers: Layers = PLAIN) -> LinearAttention:
    """The attention over the tokens of one frame that the config asks for."""
    kind = LinearAttention if config.spatial_attention == "linear" else SoftmaxAttention
    return kind(config.hidden_size, config.linear_head_dim, layers=layers)


def mix_feed_forward(layer: nn.Module, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Run a convolutional feed-forward on tokens: x (..., h*w, d) -> the same shape."""
    # Tokens seen as an image are channels-last images: neither direction copies.
    image = x.reshape(-1, *grid, x.shape[-1]).permute(0, 3, 1, 2)
    return layer(image).permute(0, 2, 3, 1).reshape(x.shape)


class Modulation(nn.Module):
    """`count` vectors (b, 1, 1, d) out of the timestep embedding (b, d): SiLU-Linear, zero at the start.

    A batch at one common timestep has b = 1 here.
    """

    def __init__(self, dim: int, count: int, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.count = count
        self.linear = layers.linear(dim, count * dim)

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        vectors: Tensor = self.linear(F.silu(embedding))
        return vectors[:, None, None].chunk(self.count, dim=-1)


class Block(nn.Module):
    """One block. Memory takes part in temporal attention alone; carried tokens in spatial attention alone.

    contexts: width of the tokens of each condition that enters by cross-attention, by name ("portrait", "audio").
    last: nothing reads the carried tokens after this block, so their results are not computed.
    """

    def __init__(
        self, config: DiTConfig, contexts: Mapping[str, int], *, last: bool = False, layers: Layers = PLAIN
    ) -> None:
        super().__init__()
        dim, heads = config.hidden_size, config.num_heads
        self.last = last
        self.temporal_norm = layers.layer_norm(dim)
        self.temporal_attention = TemporalAttention(dim, heads, layers=layers)
        self.temporal_out = layers.linear(dim, dim)
        self.guide_attention = nn.ModuleDict(
            {name: CrossAttention(dim, heads, width, layers=layers) for name, width in contexts.items()}
        )
        self.spatial_attention = spatial_attention(config, layers=layers)
        hidden = round(dim * config.mlp_ratio)
        self.feed_forward = GLUMBConv(dim, hidden, layers=layers)
        self.modulation = Modulation(dim, 6, layers=layers)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        carried: Tensor | None,
        embedding: Tensor,
        contexts: Mapping[str, KeyValue],
        grid: tuple[int, int],
        attend: Attend = softmax_attention,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """x (b, f, n, d), memory (b, m, n, d), carried (b, f, r, d), embedding (b or 1, d) -> the next three."""
        time = torch.cat([memory, x], dim=1)
        time = add_residual(time, self.temporal_out(self.temporal_attention(self.temporal_norm(time), attend)))
        memory, x = time[:, : memory.shape[1]], time[:, memory.shape[1] :]
        for name, attention in self.guide_attention.items():
            x = add_residual(x, attention(layer_norm(x), contexts[name], attend))
        shift, scale, gate, shift_ff, scale_ff, gate_ff = self.modulation(embedding)
        x, carried = self._space(x, carried, shift, scale, gate)
        y = mix_feed_forward(self.feed_forward, norm_modulate(x, shift_ff, scale_ff), grid)
        return torch.addcmul(x, gate_ff, y), memory, carried

    def _space(
        self, x: Tensor, carried: Tensor | None, shift: Tensor, scale: Tensor, gate: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        tokens = x if carried is None else torch.cat([x, carried], dim=2)
        n = x.shape[2]
        y = self.spatial_attention(norm_modulate(tokens, shift, scale).flatten(0, 1), n if self.last else None)
        y = y.unflatten(0, x.shape[:2])
        x = torch.addcmul(x, gate, y[:, :, :n])
        if carried is not None and not self.last:
            carried = torch.addcmul(carried, gate, y[:, :, n:])
        return x, carried


class FinalLayer(nn.Module):
    """Modulated norm and the Linear to the pixels of a patch, zero at the start."""

    def __init__(self, config: DiTConfig, layers: Layers = PLAIN) -> None:
        super().__init__()
        dim, out = config.hidden_size, config.patch_size**2 * config.out_channels
        self.modulation = Modulation(dim, 2, layers=layers)
        self.linear = layers.linear(dim, out)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (b, f, n, d), embedding (b, d) -> (b, f, n, patch**2 * out_channels)."""
        shift, scale = self.modulation(embedding)
        return self.linear(norm_modulate(x, shift, scale))
