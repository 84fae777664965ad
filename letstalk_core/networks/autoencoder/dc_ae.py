"""DC-AE: the deep compression autoencoder that turns images into small grids of latents, frame by frame.

Source: Chen et al. 2024 (arXiv 2410.10733); docs/model.md, Autoencoder.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...protocols import Device, DType
from ..configs import AutoencoderConfig
from ..nn.feed_forward import GLUMBConv
from ..nn.layers import PLAIN, Layers
from ..nn.norms import RMSNorm2d
from .blocks import (
    DownBlock,
    EfficientViTBlock,
    MultiScaleLinearAttention,
    ResBlock,
    UpBlock,
    activation,
    average_channels,
    repeat_channels,
)
from .tiling import Tiling, map_frames, tiled_decode, tiled_encode


class Encoder(nn.Module):
    """Images to latents. Shapes: (b, 3, H, W) in [-1, 1] -> (b, C, H/f, W/f), f = config.spatial_factor."""

    def __init__(self, config: AutoencoderConfig, layers: Layers = PLAIN) -> None:
        super().__init__()
        widths, counts = config.encoder_block_out_channels, config.encoder_layers_per_block
        down = config.downsample_block_type
        if counts[0] > 0:
            self.conv_in = layers.conv2d(config.in_channels, widths[0], 3, padding=1)
        else:
            self.conv_in = DownBlock(config.in_channels, widths[1], down, shortcut=False, layers=layers)
        stages = []
        for i, (width, count) in enumerate(zip(widths, counts, strict=True)):
            blocks: list[nn.Module] = []
            for _ in range(count):
                if config.encoder_block_types[i] == "ResBlock":
                    blocks.append(ResBlock(width, layers=layers))
                else:
                    scales = config.encoder_qkv_multiscales[i]
                    blocks.append(EfficientViTBlock(width, config.attention_head_dim, scales, layers=layers))
            if (i > 0 or count > 0) and i + 1 < len(widths):
                blocks.append(DownBlock(width, widths[i + 1], down, layers=layers))
            stages.append(nn.Sequential(*blocks))
        self.down_blocks = nn.ModuleList(stages)
        self.conv_out = layers.conv2d(widths[-1], config.latent_channels, 3, padding=1)
        self.latent_channels, self.shortcut = config.latent_channels, config.encoder_out_shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(_image_layout(x))
        for stage in self.down_blocks:
            x = stage(x)
        y: Tensor = self.conv_out(x)
        return y + average_channels(x, self.latent_channels) if self.shortcut else y


class Decoder(nn.Module):
    """Latents to images, the mirror of `Encoder`. Shapes: (b, C, h, w) -> (b, 3, h*f, w*f)."""

    def __init__(self, config: AutoencoderConfig, layers: Layers = PLAIN) -> None:
        super().__init__()
        widths, counts = config.decoder_block_out_channels, config.decoder_layers_per_block
        up = config.upsample_block_type
        self.conv_in = layers.conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.width_in, self.shortcut = widths[-1], config.decoder_in_shortcut
        stages = []
        for i, (width, count) in enumerate(zip(widths, counts, strict=True)):
            blocks: list[nn.Module] = []
            if (i > 0 or count > 0) and i + 1 < len(widths):
                blocks.append(UpBlock(widths[i + 1], width, up, layers=layers))
            norm, act = config.decoder_norm_types[i], config.decoder_act_fns[i]
            for _ in range(count):
                if config.decoder_block_types[i] == "ResBlock":
                    blocks.append(ResBlock(width, norm, act, layers=layers))
                else:
                    scales = config.decoder_qkv_multiscales[i]
                    blocks.append(EfficientViTBlock(width, config.attention_head_dim, scales, norm, layers=layers))
            stages.append(nn.Sequential(*blocks))
        self.up_blocks = nn.ModuleList(stages)  # index = stage as in the encoder; run from the last to the first
        width = widths[0] if counts[0] > 0 else widths[1]
        self.norm_out = RMSNorm2d(width, **layers.place)
        self.conv_act = activation(config.decoder_conv_act_fn)
        if counts[0] > 0:
            self.conv_out = layers.conv2d(width, config.in_channels, 3, padding=1)
        else:
            self.conv_out = UpBlock(width, config.in_channels, up, shortcut=False, layers=layers)

    def forward(self, z: Tensor) -> Tensor:
        z = _image_layout(z)
        x: Tensor = self.conv_in(z)
        if self.shortcut:
            x = x + repeat_channels(z, self.width_in)
        for stage in reversed(self.up_blocks):
            x = stage(x)
        return self.conv_out(self.conv_act(self.norm_out(x)))


class AutoencoderDC(nn.Module):
    """The autoencoder: deterministic latents, no posterior. Keys are those of the public diffusers files.

    `encode` returns raw latents; what the denoiser sees is `latents * config.scaling_factor`.
    """

    def __init__(
        self, config: AutoencoderConfig, *, operations: Any = nn, device: Device = None, dtype: DType = None
    ) -> None:
        super().__init__()
        self.config = config
        layers = Layers(operations, device, dtype)
        self.encoder, self.decoder = Encoder(config, layers), Decoder(config, layers)

    def encode(self, x: Tensor) -> Tensor:
        """Images to raw latents: (b, 3, H, W) in [-1, 1] -> (b, C, H/f, W/f).

        Raises: ConfigError if H or W is not a multiple of the factor f.
        """
        factor, (height, width) = self.config.spatial_factor, x.shape[-2:]
        if height % factor or width % factor:
            raise ConfigError(
                f"image size {width}x{height} is not a multiple of {factor}, which this autoencoder needs;"
                " crop or resize the image"
            )
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Raw latents to images: (b, C, h, w) -> (b, 3, h*f, w*f), about [-1, 1], not clamped."""
        return self.decoder(z)

    def encode_frames(self, x: Tensor, batch: int = 8, tiling: Tiling | None = None) -> Tensor:
        """`encode` a few frames at a time to bound memory, in tiles if asked: (n, 3, H, W) -> (n, C, H/f, W/f)."""
        encode = self.encode if tiling is None else partial(tiled_encode, self, tiling=tiling)
        return map_frames(encode, x, batch)

    def decode_frames(self, z: Tensor, batch: int = 8, tiling: Tiling | None = None) -> Tensor:
        """`decode` a few frames at a time to bound memory, in tiles if asked: (n, C, h, w) -> (n, 3, h*f, w*f)."""
        decode = self.decode if tiling is None else partial(tiled_decode, self, tiling=tiling)
        return map_frames(decode, z, batch)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction: (b, 3, H, W) -> the same."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start values for training.

        Convolutions and linear layers: normal, cut at two deviations, variance 1 / inputs. Residual branches end
        in a norm whose weight starts at 0: every block starts as the identity and the shortcuts carry the signal.
        Zeroing the convolution before it instead would multiply its first gradients by 1/sqrt(eps). The four
        weights that fill one 2x2 cell of a pixel shuffle start equal, which avoids a checkerboard.
        """
        for module in self.modules():
            weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
            if weight is not None and weight.ndim >= 2:
                _truncated_normal(weight)
            elif weight is not None:
                weight.fill_(1.0)
            if bias is not None:
                bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        for module in self.modules():
            if isinstance(module, UpBlock) and not module.interpolate:
                first = module.conv.weight[::4].clone()
                module.conv.weight.copy_(first.repeat_interleave(4, dim=0))
            elif isinstance(module, (ResBlock, GLUMBConv)) and module.norm is not None:
                nn.init.zeros_(module.norm.get_parameter("weight"))
            elif isinstance(module, MultiScaleLinearAttention):
                nn.init.zeros_(module.norm_out.get_parameter("weight"))


def _image_layout(x: Tensor) -> Tensor:
    """The order in memory that convolutions are fastest in: channels last on a CPU, and in 16 bits on a GPU."""
    if x.device.type == "cpu" or (x.device.type == "cuda" and x.dtype in (torch.float16, torch.bfloat16)):
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _truncated_normal(weight: Tensor) -> None:
    std = math.sqrt(1.0 / weight[0].numel()) / 0.8796  # cutting at two deviations shrinks the deviation to 0.8796
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
