"""Any DC-AE as ComfyUI's native VAE: video of independent frames, latents already in model space.

Latents on the wire carry the autoencoder's scaling factor, so every DiT goes with its autoencoder without knowing
that number, and its LatentFormat scales nothing.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch
from einops import rearrange
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.networks.autoencoder.convert import read_autoencoder
from ...letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from ...letstalk_core.networks.autoencoder.tiling import map_frames
from ...letstalk_core.networks.checkpoint import check_keys
from ...letstalk_core.networks.configs import AutoencoderConfig
from .progress import interruptible

CHUNK_PIXELS = 2**19  # pixels in one pass: 8 frames of 256x256, so that other models stay on the GPU meanwhile


class FrameAutoencoder(AutoencoderDC):
    """DC-AE as ComfyUI's VAE calls it: scaled latents, 4-D or 5-D, a few frames at a time.

    Shapes: images (b, 3, t, H, W) in [-1, 1] <-> latents (b, C, t, h, w), or both without t. Results are float32
    and lie on `output_device`, so what is on the GPU does not grow with the number of frames.
    """

    def __init__(self, config: AutoencoderConfig, output_device: torch.device, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self.output_device = output_device

    def encode(self, x: Tensor) -> Tensor:
        return self._by_frames(lambda part: super(FrameAutoencoder, self).encode(part).float() * self._scale, x, 1)

    def decode(self, z: Tensor) -> Tensor:
        def decode(part: Tensor) -> Tensor:
            images = super(FrameAutoencoder, self).decode((part.float() / self._scale).to(part.dtype))
            return images.masked_fill_(images.isinf(), torch.nan)  # which survives clamping, and is then noticed

        return self._by_frames(decode, z, self.config.spatial_factor)

    @property
    def _scale(self) -> float:
        return self.config.scaling_factor

    def _by_frames(self, function: Any, x: Tensor, factor: int) -> Tensor:
        def part(frames: Tensor) -> Tensor:
            mm.throw_exception_if_processing_interrupted()
            return function(frames).to(self.output_device).float()

        frames = rearrange(x, "b c t h w -> (b t) c h w") if x.ndim == 5 else x
        batch = frames_at_once(frames.shape[-2] * factor, frames.shape[-1] * factor)
        out = map_frames(part, frames, batch)
        return rearrange(out, "(b t) c h w -> b c t h w", b=x.shape[0]) if x.ndim == 5 else out


class LetsTalkVAE(comfy.sd.VAE):
    """A native VAE around a FrameAutoencoder. `path` is the file it came from, `autoencoder_config` its config."""

    upscale_ratio: Any  # ComfyUI gives these three other types for other VAEs
    downscale_ratio: Any
    first_stage_model: Any

    def __init__(
        self,
        config: AutoencoderConfig,
        tensors: dict[str, Tensor],
        name: str,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        # The smallest native VAE: afterwards every attribute is there that the running core expects.
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)}, device=device, dtype=dtype)
        self.autoencoder_config = config
        self.path: Path | None = None
        factor = config.spatial_factor
        self.latent_channels, self.output_channels = config.latent_channels, config.in_channels
        self.latent_dim, self.not_video = 3, False
        self.upscale_ratio = self.downscale_ratio = (lambda frames: frames, factor, factor)
        self.upscale_index_formula = self.downscale_index_formula = (1, factor, factor)
        self.process_input = lambda image: image * 2.0 - 1.0
        # In place and returned: older cores take the result, newer ones expect the change.
        self.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)
        self.memory_used_encode = lambda shape, dtype: self._memory(shape, dtype, "encoder", 1)
        self.memory_used_decode = lambda shape, dtype: self._memory(shape, dtype, "decoder", factor)
        self.working_dtypes = [torch.bfloat16, torch.float32]
        self.disable_offload = "batch_norm" in config.decoder_norm_types  # comfy.ops has none that moves itself
        self.device = device if device is not None else mm.vae_device()
        self.vae_dtype = dtype if dtype is not None else mm.vae_dtype(self.device, self.working_dtypes)
        self.output_device = mm.intermediate_device()
        model = FrameAutoencoder(
            config,
            self.output_device,
            operations=comfy.ops.disable_weight_init,
            device="meta",
            dtype=self.vae_dtype,
        )
        check_keys(name, tensors, model.state_dict())
        placed = {k: v.to(self.vae_dtype) if v.is_floating_point() else v for k, v in tensors.items()}
        model.load_state_dict(placed, assign=True)
        self.first_stage_model = interruptible(model.eval().requires_grad_(False))
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=mm.vae_offload_device()
        )

    def encode(self, pixel_samples: Tensor, *args: Any, **keywords: Any) -> Tensor:
        """IMAGE (n, H, W, 3), or grey (n, H, W, 1), in 0..1 -> latents (1, C, n, h, w)."""
        return super().encode(_coloured(pixel_samples), *args, **keywords)

    def decode(self, samples_in: Tensor, *args: Any, **keywords: Any) -> Tensor:
        """Latents (b, C, t, h, w) -> (b, t, H, W, 3) in 0..1; without t, images without t. Raises: ConfigError."""
        self._check(samples_in)
        if samples_in.ndim == 4:
            return super().decode(samples_in.unsqueeze(2), *args, **keywords).squeeze(1)
        return super().decode(samples_in, *args, **keywords)

    def decode_tiled(
        self,
        samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        **keywords: Any,
    ) -> Tensor:
        """`decode` in overlapping tiles; sizes are in latent positions. Raises: ConfigError."""
        self._check(samples)
        tiles = self._tiles(tile_x, tile_y, overlap, 1)
        if samples.ndim == 4:
            return super().decode_tiled(samples.unsqueeze(2), **tiles, **keywords).squeeze(1)
        return super().decode_tiled(samples, **tiles, **keywords)

    def encode_tiled(
        self,
        pixel_samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        **keywords: Any,
    ) -> Tensor:
        """`encode` in overlapping tiles; sizes are in pixels."""
        pixel_samples = _coloured(pixel_samples)
        tiles = self._tiles(tile_x, tile_y, overlap, self.autoencoder_config.spatial_factor)
        return super().encode_tiled(pixel_samples, **tiles, **keywords)

    def _check(self, latents: Tensor) -> None:
        needed = self.latent_channels
        if latents.ndim not in (4, 5) or latents.shape[1] != needed:
            raise ConfigError(
                f"samples: has shape {list(latents.shape)}, this VAE decodes latents of {needed} channels; use the"
                " VAE of the model that made them"
            )

    def _tiles(self, tile_x: int | None, tile_y: int | None, overlap: int | None, unit: int) -> dict[str, int]:
        """Tiles of whole latent positions, at least 2 of them, that overlap by less than their half."""
        least = 512 // self.autoencoder_config.spatial_factor  # of a side that was not given
        tile_x, tile_y = (unit * max(2, (least if n is None else n // unit)) for n in (tile_x, tile_y))
        shared = min(tile_x, tile_y) // unit // 4 if overlap is None else overlap // unit
        shared = min(shared, min(tile_x, tile_y) // unit // 2)
        return {"tile_x": tile_x, "tile_y": tile_y, "overlap": shared * unit}

    def _memory(self, shape: Any, dtype: torch.dtype, side: str, factor: int) -> int:
        """Bytes on the device for one item of shape (b, c, [t,] h, w) in pixels times `factor`.

        Activations of one pass peak at the stage whose width times area is largest: with 8 to 11 tensors of its
        size, some in float32 (counted tensor by tensor for all presets), and room for the convolutions' workspace.
        """
        widths = getattr(self.autoencoder_config, f"{side}_block_out_channels")
        layers = getattr(self.autoencoder_config, f"{side}_layers_per_block")
        widest = max(w / 4**i for i, (w, n) in enumerate(zip(widths, layers, strict=True)) if i or n)
        height, width = shape[-2] * factor, shape[-1] * factor
        frames = shape[2] if len(shape) == 5 else 1
        at_once = min(frames, frames_at_once(height, width))
        size = mm.dtype_size(dtype)
        passing = at_once * height * width * widest * (16 + 5 * size)
        whole = frames * shape[1] * shape[-2] * shape[-1] * size  # what comes in, all of it
        if self.output_device == self.device:
            whole += frames * height * width * 3 * 4
        return int(passing + whole)


def _coloured(images: Tensor) -> Tensor:
    """IMAGE of one channel, as a mask gives it, with three."""
    return images.expand(*images.shape[:-1], 3) if images.shape[-1] == 1 else images


def frames_at_once(height: int, width: int) -> int:
    """Frames of one pass through the network."""
    return max(1, CHUNK_PIXELS // (height * width))


def load_vae(path: Path, device: torch.device | None = None, dtype: torch.dtype | None = None) -> LetsTalkVAE:
    """A DC-AE from our file or a public one, in the diffusers or the original format. Raises: CheckpointError."""
    config, tensors = read_autoencoder(path)
    vae = LetsTalkVAE(config, tensors, str(path), device, dtype)
    vae.path = path
    return vae


def float32_vae(vae: Any) -> Any:
    """A copy of a VAE with float32 weights of its own; the given one, which is shared, stays as it is."""
    result = copy.copy(vae)
    result.first_stage_model = copy.deepcopy(vae.first_stage_model).to(vae.patcher.offload_device).float()
    result.vae_dtype = torch.float32
    result.patcher = comfy.model_patcher.ModelPatcher(
        result.first_stage_model, load_device=vae.patcher.load_device, offload_device=vae.patcher.offload_device
    )
    return result
