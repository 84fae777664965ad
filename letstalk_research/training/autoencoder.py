"""Training of the autoencoder on random frames of clips.

Loss: region-weighted L1, L1 of finite differences, L1 at coarser scales, and a pull of the latents to zero mean
and unit variance per channel. Noise on the latents before decoding makes the decoder forgive small errors.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.autoencoder.preview import fit_latent_preview
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.configs import AutoencoderConfig
from letstalk_core.pixels import from_unit, to_unit

from ..data.clips import FrameBatch, FrameSampler, crop_windows
from ..data.manifest import ClipRecord, Manifest
from ..output import save_png
from .config import AutoencoderObjective, AutoencoderRecipe
from .losses import gradient_l1, latent_regulariser, multiscale_l1, psnr, region_psnr, region_weights, weighted_l1
from .plots import grid
from .runtime import load_part, seed_of

logger = logging.getLogger(__name__)
FILE = "autoencoder.safetensors"
FIT_FRAMES = 96  # frames on which latent scale and preview colours are measured


class _AutoencoderModule(nn.Module):
    """The network with its loss, in one forward call as distributed training needs it."""

    def __init__(self, autoencoder: AutoencoderDC, objective: AutoencoderObjective) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.objective = objective
        if objective.decoder_only:
            autoencoder.encoder.requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: images (b, h, w, 3) uint8, regions (b, 3, 4)."""
        o = self.objective
        images = to_unit(batch["images"])
        weights = region_weights(
            batch["regions"],
            (o.mouth_weight, o.eyes_weight, o.eyes_weight),
            *images.shape[-2:],
            softness=o.region_softness,
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not o.decoder_only):
            latents = self.autoencoder.encode(images)
        noisy = latents
        if o.latent_noise:
            noisy = latents + o.latent_noise * latents.detach().std() * torch.randn_like(latents)
        error = self.autoencoder.decode(noisy).float() - images
        terms = {"l1": weighted_l1(error, weights)}
        loss = terms["l1"]
        if o.gradient_weight:
            terms["edges"] = gradient_l1(error, weights)
            loss = loss + o.gradient_weight * terms["edges"]
        if o.multiscale_weight:
            terms["coarse"] = multiscale_l1(error)
            loss = loss + o.multiscale_weight * terms["coarse"]
        if o.latent_weight and not o.decoder_only:
            terms["latent"] = latent_regulariser(latents)
            loss = loss + o.latent_weight * terms["latent"]
        terms["latent_std"] = latents.detach().float().std()
        return loss, terms


class AutoencoderStage:
    """Stage of `training.loop`: data, validation, samples and export of the autoencoder."""

    channels_last = True

    def __init__(self, recipe: AutoencoderRecipe) -> None:
        self.recipe = recipe
        self.config = recipe.model
        torch.manual_seed(recipe.loop.seed)
        autoencoder = AutoencoderDC(self.config)
        if recipe.loop.init:
            config = load_part(autoencoder, recipe.loop.init, "autoencoder")
            if recipe.objective.decoder_only:  # latents stay as they are, so their scale does too
                keys = ("scaling_factor", "latent_rgb_factors", "latent_rgb_bias")
                self.config = dataclasses.replace(self.config, **{k: getattr(config, k) for k in keys})
        elif recipe.objective.decoder_only:
            raise ConfigError("[objective] decoder_only=true needs [loop] init, the model whose encoder stays")
        else:
            autoencoder.init_weights()
        self.module: nn.Module = _AutoencoderModule(autoencoder, recipe.objective)
        self.autoencoder = autoencoder
        size, factor = recipe.data.crop_size, self.config.spatial_factor
        if size % factor or size > self.config.image_size:
            raise ConfigError(
                f"[data] crop_size={size} must be a multiple of {factor} up to {self.config.image_size} pixels"
            )
        self.manifest = Manifest(recipe.data.folder)
        self.sampler = FrameSampler(recipe.data.folder, image_size=self.config.image_size)
        self._validation: FrameBatch | None = None

    def refresh(self, limit: int | None = None) -> int:
        return self.manifest.refresh(limit)

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        records, data = self.manifest.select("train"), self.recipe.data

        def make() -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(seed)
            cut = data.crop_size > 0 and float(torch.rand((), generator=generator)) < data.crop_share
            count = data.crop_batch if cut else data.batch_size
            images, regions = self.sampler.draw(records, count, generator, flip=data.flip)
            if cut:
                factor = self.config.spatial_factor
                images, regions = crop_windows(images, regions, data.crop_size, factor, generator)
            return {"images": images, "regions": regions}

        return make

    def _fixed_frames(self, records: tuple[ClipRecord, ...], count: int, purpose: str) -> FrameBatch:
        """Frames that depend on the clips only: one each, from clips spread over the records."""
        images, regions = [], []
        for i in range(min(count, 4 * len(records))):
            record = records[i * len(records) // min(count, 4 * len(records))]
            generator = torch.Generator().manual_seed(seed_of(purpose, record.id, i))
            image, boxes = self.sampler.draw([record], 1, generator, flip=False)
            images.append(image)
            regions.append(boxes)
        return torch.cat(images), torch.cat(regions)

    def _validation_frames(self) -> FrameBatch | None:
        """Validation frames, chosen when the split first has clips and kept; None while it has none."""
        records = self.manifest.select("val")
        if self._validation is None or len(self._validation[0]) < self.recipe.data.validation_items:
            if records:
                self._validation = self._fixed_frames(records, self.recipe.data.validation_items, "val")
        return self._validation

    def _reconstruct(self, images: Tensor, device: torch.device) -> Tensor:
        parts = []
        for chunk in images.split(8):
            x = to_unit(chunk.to(device))
            parts.append(self.autoencoder.decode(self.autoencoder.encode(x)).float().clamp(-1, 1).cpu())
        return torch.cat(parts)

    def validate(self, device: torch.device) -> Mapping[str, float]:
        frames = self._validation_frames()
        if frames is None:
            return {}
        images, regions = frames
        found, target = self._reconstruct(images, device), to_unit(images)
        values = {"psnr": float(psnr(found, target).mean())}
        for name, index in (("mouth", [0]), ("eyes", [1, 2])):
            inside = region_psnr(found, target, regions, index)
            if inside:
                values[f"psnr_{name}"] = sum(inside) / len(inside)
        return values

    def sample(self, path: Path, device: torch.device) -> None:
        """Targets, reconstructions, and both zoomed at mouth and eyes."""
        frames = self._validation_frames()
        if frames is None:
            return
        count = min(8, len(frames[0]))
        pick = torch.arange(count) * len(frames[0]) // count
        images, regions = frames[0][pick], frames[1][pick]
        found = from_unit(self._reconstruct(images, device))
        rows = [list(images), list(found)]
        for index in (0, 1, 2):
            rows += [[zoom(x, regions[i, index]) for i, x in enumerate(source)] for source in (images, found)]
        save_png(grid(rows), path)

    def export(self, folder: Path, device: torch.device) -> list[Path]:
        config = self.config if self.recipe.objective.decoder_only else self._measured(device)
        tensors = self.autoencoder.state_dict().items()
        state = {k: v.half() if v.is_floating_point() else v for k, v in tensors}
        save_checkpoint(folder / FILE, {"autoencoder": (config, state)}, {"letstalk.recipe": "autoencoder"})
        return [folder / FILE]

    def _measured(self, device: torch.device) -> AutoencoderConfig:
        """The config with the scale that gives latents unit deviation and preview colours, fitted to frames."""
        records = self.manifest.select("train")
        try:
            images, _ = self._fixed_frames(records, FIT_FRAMES, "fit")
        except MediaError as error:
            logger.warning("latent scale is not measured: %s", error)
            return self.config
        latents = torch.cat(
            [self.autoencoder.encode(to_unit(c.to(device))).float().cpu() for c in images.split(8)]
        )
        scale = 1.0 / max(1e-6, float(latents.std()))
        factors, bias = fit_latent_preview(latents * scale, to_unit(images))
        return dataclasses.replace(
            self.config, scaling_factor=round(scale, 6), latent_rgb_factors=factors, latent_rgb_bias=bias
        )


def zoom(image: Tensor, box: Tensor) -> Tensor:
    """The square round a box, enlarged to the size of the image (h, w, 3); black where the box is unknown."""
    height, width, _ = image.shape
    x0, y0, x1, y1 = (int(v) for v in box)
    side = min(max(x1 - x0, y1 - y0), height, width)
    if side <= 0:
        return torch.zeros_like(image)
    left = min(max(0, (x0 + x1 - side) // 2), width - side)
    top = min(max(0, (y0 + y1 - side) // 2), height - side)
    patch = rearrange(image[top : top + side, left : left + side].float(), "h w c -> 1 c h w")
    big = F.interpolate(patch, size=(height, width), mode="nearest")
    return rearrange(big, "1 c h w -> h w c").to(torch.uint8)
