"""Blocks of DC-AE. Attribute names are the key names of the public files, so those load without renaming.

`Layers` makes every layer but BatchNorm2d, which `comfy.ops` does not have and which only the `in` and
`mix` decoders use: it comes from `torch.nn` and is small.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from ...errors import ConfigError
from ..nn.attention import without_autocast
from ..nn.feed_forward import GLUMBConv
from ..nn.inplace import add_residual, silu_of_own
from ..nn.layers import PLAIN, Layers
from ..nn.norms import RMSNorm2d
from .convolutions import PhaseConv, PointwiseGroups, grouped_conv, phase_conv

EXPANSION = 4  # of the feed-forward in an EfficientViTBlock


class _SiLU(nn.Module):
    """SiLU of what another layer has just returned: without gradients it is overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        return silu_of_own(x)


def activation(name: str) -> nn.Module:
    """The activation of a config, for results of other layers. Raises: ConfigError for an unknown name."""
    if name not in ("silu", "relu"):
        raise ConfigError(f"activation {name!r} is unknown; known are silu and relu")
    return _SiLU() if name == "silu" else nn.ReLU()


def _norm(kind: str, dim: int, layers: Layers) -> nn.Module:
    if kind == "batch_norm":
        return nn.BatchNorm2d(dim, **layers.place)
    return RMSNorm2d(dim, **layers.place)


def _normalise(norm: nn.Module, y: Tensor) -> Tensor:
    """The norm of what a layer has just returned."""
    return norm(y, own=True) if isinstance(norm, RMSNorm2d) else norm(y)


def average_channels(x: Tensor, channels: int) -> Tensor:
    """Average neighbouring channels down to `channels`: (b, channels * g, h, w) -> (b, channels, h, w)."""
    return reduce(x, "b (c g) h w -> b c h w", "mean", c=channels)


def repeat_channels(x: Tensor, channels: int) -> Tensor:
    """Repeat every channel up to `channels`: (b, c, h, w) -> (b, channels, h, w)."""
    return repeat(x, "b c h w -> b (c r) h w", r=channels // x.shape[1])


class ResBlock(nn.Module):
    """3x3 conv, activation, 3x3 conv, norm, plus the input. Shapes: (b, dim, h, w) -> the same."""

    def __init__(self, dim: int, norm: str = "rms_norm", act: str = "silu", layers: Layers = PLAIN) -> None:
        super().__init__()
        self.conv1 = layers.conv2d(dim, dim, 3, padding=1)
        self.act = activation(act)
        self.conv2 = layers.conv2d(dim, dim, 3, padding=1, bias=False)
        self.norm = _norm(norm, dim, layers)

    def forward(self, x: Tensor) -> Tensor:
        y = _normalise(self.norm, self.conv2(self.act(self.conv1(x))))
        return add_residual(x, y)


class _Aggregation(nn.Module):
    """One more scale of q, k and v: a depth-wise convolution, then a 1x1 one within each head's q, k and v."""

    def __init__(self, dim: int, heads: int, kernel: int, layers: Layers) -> None:
        super().__init__()
        self.proj_in = layers.conv2d(3 * dim, 3 * dim, kernel, padding=kernel // 2, groups=3 * dim, bias=False)
        conv = grouped_conv(layers.operations.Conv2d)
        self.proj_out = conv(3 * dim, 3 * dim, 1, groups=3 * heads, bias=False, **layers.place)

    def forward(self, qkv: Tensor) -> Tensor:
        """(b, 3 * dim, h, w) -> (b, 3 * heads, h * w, e)."""
        y: Tensor = self.proj_out(self.proj_in(qkv))
        if isinstance(self.proj_out, PointwiseGroups):
            return y
        return rearrange(y, "b (g e) h w -> b g (h w) e", g=self.proj_out.groups)


class MultiScaleLinearAttention(nn.Module):
    """ReLU linear attention over one image, with extra heads whose q, k and v were gathered by convolutions.

    The names hide a trap: `to_q`, `to_k` and `to_v` are the first, second and third *part of one fused projection*
    whose channels run (head, q|k|v, e). They are not the queries, keys and values of all heads.

    With no more positions than the head is wide, the quadratic form of the same sum is cheaper and is used.

    Shapes: x (b, dim, h, w) -> (b, dim, h, w), without the residual. The attention itself runs in float32: its
    sums over thousands of positions overflow float16. Source: Cai et al. 2023 (EfficientViT), sec. 3.1.
    """

    eps = 1e-15  # of the public models; the sum it guards is 0 or far above it

    def __init__(
        self,
        dim: int,
        head_dim: int = 32,
        scales: Sequence[int] = (),
        norm: str = "rms_norm",
        layers: Layers = PLAIN,
    ) -> None:
        super().__init__()
        if dim % head_dim:
            raise ConfigError(f"attention width {dim} is not a multiple of attention_head_dim={head_dim}")
        self.head_dim = head_dim
        self.to_q = layers.linear(dim, dim, bias=False)
        self.to_k = layers.linear(dim, dim, bias=False)
        self.to_v = layers.linear(dim, dim, bias=False)
        self.to_qkv_multiscale = nn.ModuleList(
            _Aggregation(dim, dim // head_dim, kernel, layers) for kernel in scales
        )
        self.to_out = layers.linear(dim * (1 + len(scales)), dim, bias=False)
        self.norm_out = _norm(norm, dim, layers)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tokens = x.permute(0, 2, 3, 1)
        fused = torch.cat([self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)], dim=-1)
        scales = [rearrange(fused, "b h w (g e) -> b g (h w) e", e=self.head_dim)]
        image = fused.permute(0, 3, 1, 2)
        scales += [scale(image) for scale in self.to_qkv_multiscale]
        with without_autocast(x.device.type):  # groups of channels run (head, q|k|v)
            heads = [
                self._attend(y[:, 0::3].float().relu(), y[:, 1::3].float().relu(), y[:, 2::3].float())
                for y in scales
            ]
        attended = torch.cat([rearrange(y, "b heads n e -> b n (heads e)") for y in heads], dim=-1).to(x.dtype)
        y = self.to_out(attended.unflatten(1, (height, width)))
        return _normalise(self.norm_out, y.permute(0, 3, 1, 2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[-2] <= self.head_dim:
            scores = q @ k.mT
            return (scores / (scores.sum(dim=-1, keepdim=True) + self.eps)) @ v
        y = q @ (k.mT @ F.pad(v, (0, 1), value=1.0))  # the normaliser rides along as one more value channel
        return y[..., :-1] / (y[..., -1:] + self.eps)


class EfficientViTBlock(nn.Module):
    """Multi-scale linear attention, then a gated convolutional feed-forward, each plus its input.

    Shapes: (b, dim, h, w) -> the same. Source: Chen et al. 2024 (DC-AE), after Cai et al. 2023.
    """

    def __init__(
        self,
        dim: int,
        head_dim: int = 32,
        scales: Sequence[int] = (),
        norm: str = "rms_norm",
        layers: Layers = PLAIN,
    ) -> None:
        super().__init__()
        self.attn = MultiScaleLinearAttention(dim, head_dim, scales, norm, layers=layers)
        self.conv_out = GLUMBConv(dim, EXPANSION * dim, norm=True, layers=layers)

    def forward(self, x: Tensor) -> Tensor:
        x = add_residual(x, self.attn(x))
        return add_residual(x, self.conv_out(x))


class DownBlock(nn.Module):
    """Half the size: a strided 3x3 conv, or a 3x3 conv to a quarter of the width and a pixel unshuffle.

    The shortcut unshuffles the input and averages groups of channels to the new width, so that the convolution
    only learns what averaging loses. Shapes: (b, dim, h, w) -> (b, out, h/2, w/2).
    Source: Chen et al. 2024 (DC-AE), residual autoencoding, fig. 4.
    """

    def __init__(
        self, dim: int, out: int, kind: str = "pixel_unshuffle", shortcut: bool = True, layers: Layers = PLAIN
    ) -> None:
        super().__init__()
        self.unshuffle = kind == "pixel_unshuffle"
        if (self.unshuffle and out % 4) or (shortcut and 4 * dim % out):
            raise ConfigError(
                f"a down block from width {dim} to {out} cannot be built: {out} must divide {4 * dim}"
                f"{' and be a multiple of 4' if self.unshuffle else ''}"
            )
        self.out, self.shortcut = out, shortcut
        width, stride = (out // 4, 1) if self.unshuffle else (out, 2)
        self.conv = layers.conv2d(dim, width, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.unshuffle:
            y = F.pixel_unshuffle(y, 2)
        return y + average_channels(F.pixel_unshuffle(x, 2), self.out) if self.shortcut else y


class UpBlock(nn.Module):
    """Twice the size: nearest interpolation and a 3x3 conv, or a 3x3 conv to 4 x the width and a pixel shuffle.

    The shortcut repeats channels and shuffles them. Shapes: (b, dim, h, w) -> (b, out, 2h, 2w).
    Source: Chen et al. 2024 (DC-AE), residual autoencoding, fig. 4.
    """

    def __init__(
        self, dim: int, out: int, kind: str = "pixel_shuffle", shortcut: bool = True, layers: Layers = PLAIN
    ) -> None:
        super().__init__()
        if shortcut and 4 * out % dim:
            raise ConfigError(
                f"an up block from width {dim} to {out} cannot be built: {dim} must divide {4 * out}"
            )
        self.interpolate = kind == "interpolate"
        self.out, self.shortcut = out, shortcut
        width = out if self.interpolate else 4 * out
        conv = phase_conv(layers.operations.Conv2d, self.interpolate)
        self.conv = conv(dim, width, 3, padding=1, **layers.place)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.conv, PhaseConv) and not torch.is_grad_enabled():
            return self._by_phases(x)
        if self.interpolate:
            y: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        else:
            y = F.pixel_shuffle(self.conv(x), 2)
        return y + F.pixel_shuffle(repeat_channels(x, 4 * self.out), 2) if self.shortcut else y

    def _by_phases(self, x: Tensor) -> Tensor:
        """The same, each phase of the output at the size of the input, with its part of the shortcut."""
        height, width = x.shape[-2:]
        phases = self.conv(x)
        y = torch.empty(
            (len(x), self.out, 2 * height, 2 * width),
            dtype=phases[0].dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        for phase, part in enumerate(phases):
            if self.shortcut:
                part = part + _phase_of_shortcut(x, self.out, phase)
            y[:, :, phase // 2 :: 2, phase % 2 :: 2] = part
        return y


def _phase_of_shortcut(x: Tensor, out: int, phase: int) -> Tensor:
    """Phase 2i + j of pixel_shuffle(repeat_channels(x, 4 * out), 2): (b, dim, h, w) -> (b, out, h, w)."""
    repeats = 4 * out // x.shape[1]
    if repeats in (1, 2, 4):
        return x[:, phase // repeats :: 4 // repeats]
    return x[:, (torch.arange(out, device=x.device) * 4 + phase) // repeats]
