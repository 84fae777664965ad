"""Training of the denoiser and its audio projection on cached latents (docs/model.md, Diffusion, Memory bank)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.nn.attention import without_autocast
from letstalk_core.networks.projection import AudioProjection
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.networks.transformer.dit import LetsTalkDiT
from letstalk_core.pixels import from_unit

from ..data.latents import LatentStore, Window, draw_clips, draw_windows
from ..data.manifest import Manifest
from ..output import save_png, save_tensors
from .config import DiTRecipe
from .lora import add_lora, lora_tensors, merged_state
from .losses import add_noise, disturb_memory, draw_times, region_weights, variance_bound
from .plots import grid
from .runtime import load_part, seed_of
from .warm_start import warm_start

logger = logging.getLogger(__name__)
FILE, LORA_FILE = "dit.safetensors", "lora.safetensors"
BUCKETS = 4  # of the noise level, for logging
STRIP_FRAMES = 8


class _DiTModule(nn.Module):
    """Denoiser and audio projection with their loss."""

    def __init__(self, recipe: DiTRecipe) -> None:
        super().__init__()
        self.config, self.objective = recipe.model, recipe.objective
        self.dit = LetsTalkDiT(recipe.model)
        self.dit.gradient_checkpointing = recipe.objective.gradient_checkpointing
        self.audio_projection = AudioProjection(recipe.projection)
        self.image_size = 0  # pixels; set when latents are loaded

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: the tensors of `data.latents.Window`."""
        o = self.objective
        clean, known, weights = self.prepare(batch)
        b, device = len(clean), clean.device

        def keep(drop: float) -> Tensor:
            return (torch.rand(b, device=device) >= drop).float()

        memory = disturb_memory(
            known.memory,
            keep=min(1, self.config.anchor_frames),
            ddpm_steps=o.memory_ddpm_steps,
            sigma=o.memory_sigma,
            mask=o.memory_mask,
            mask_probability=o.memory_mask_probability,
        )
        heard = keep(o.drop_audio)
        known = Conditions(
            audio=known.audio * heard.view(-1, 1, 1, 1),
            portrait=known.portrait * keep(o.drop_portrait).view(-1, 1, 1, 1),
            memory=memory * keep(o.drop_memory).view(-1, 1, 1, 1, 1),
            movement=known.movement,
        )
        if self.config.prediction == "flow":
            time = draw_times(b, device, mean=o.timestep_mean, std=o.timestep_std, uniform=o.uniform_timesteps)
        else:
            time = 1 - torch.rand(b, device=device)
        noise, guided = torch.randn_like(clean), heard * o.model_guidance
        losses, variance = self.losses(clean, noise, time, known, weights, guided)
        loss = losses.mean()
        metrics = {"mse": loss.detach()}
        if variance is not None:
            metrics["variance"] = variance.mean().detach()
            loss = loss + o.vlb_weight * 1000 * variance.mean()
        bucket = (time * BUCKETS).long().clamp(max=BUCKETS - 1)
        for i in range(BUCKETS):  # nan where a bucket is empty: the loop leaves those out of its mean
            metrics[f"mse_{i}"] = losses[bucket == i].detach().mean()
        return loss, metrics

    def prepare(self, batch: dict[str, Tensor]) -> tuple[Tensor, Conditions, Tensor]:
        """Clean clip, its conditions, and weights (b, f, 1, h, w) of mean 1."""
        clean, memory, portrait = (batch[k].float() for k in ("frames", "memory", "portrait"))
        audio = self.audio_projection(batch["audio"].float())
        movement = self.audio_projection.movement_of(batch["movement"].float())
        h, w = clean.shape[-2:]
        o = self.objective
        boxes = rearrange(batch["regions"].float(), "b f r x -> (b f) r x") * (h / max(1, self.image_size))
        weights = region_weights(boxes, (o.mouth_weight, o.eyes_weight, o.eyes_weight), h, w, softness=1.0)
        weights = rearrange(weights, "(b f) 1 h w -> b f 1 h w", b=len(clean))
        return clean, Conditions(portrait, audio, memory, movement), weights / weights.mean()

    def losses(
        self,
        clean: Tensor,
        noise: Tensor,
        time: Tensor,
        conditions: Conditions,
        weights: Tensor,
        guided: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Weighted squared error of each sample (b,), and its variance term when the variance is learned.

        `guided` (b,) moves each target away from what the network puts out without sound, by this part of the
        difference: g makes an unguided network of one that guidance at a scale of 1 / (1 - g) would have made.
        """
        if self.config.portrait_residual:
            clean = (clean - conditions.portrait.unsqueeze(1)) / self.config.residual_scale
        noisy = add_noise(clean, noise, time, self.config.prediction)
        output = self.dit(noisy.x, noisy.timestep, **conditions.tensors()).float()
        channels = clean.shape[2]
        target = clean if self.config.output == "sample" else noisy.target
        if guided is not None and bool(guided.any()):
            with torch.no_grad():
                silent = replace(conditions, audio=torch.zeros_like(conditions.audio))
                deaf = self.dit(noisy.x, noisy.timestep, **silent.tensors())
            effect = (output.detach() - deaf.float())[:, :, :channels]
            target = target + guided.view(-1, 1, 1, 1, 1) * effect
        error = output[:, :, :channels] - target
        if self.config.output == "sample":  # the flow's error is that of the sample over sigma
            error = error / noisy.level.clamp(min=self.objective.smallest_sigma).view(-1, 1, 1, 1, 1)
        error = error.square() * weights
        variance = None
        if self.config.learned_variance:
            variance = variance_bound(clean, noisy, output[:, :, :channels], output[:, :, channels:])
        return error.flatten(1).mean(1), variance


class DiTStage:
    """Stage of `training.loop`: windows of latents, validation, sample strips and export of the denoiser."""

    channels_last = False

    def __init__(self, recipe: DiTRecipe) -> None:
        self.recipe = recipe
        config, projection = recipe.model, recipe.projection
        if projection.token_dim != config.audio_token_dim:
            raise ConfigError(
                f"[projection] token_dim={projection.token_dim} must equal [model]"
                f" audio_token_dim={config.audio_token_dim}"
            )
        if recipe.loop.init and recipe.objective.init_from:
            raise ConfigError("[loop] init and [objective] init_from both give start values; set one of them")
        if recipe.objective.lora_rank and not recipe.loop.init:
            raise ConfigError("[objective] lora_rank needs [loop] init, the model that is changed")
        torch.manual_seed(recipe.loop.seed)
        module = _DiTModule(recipe)
        if recipe.loop.init:
            for part, net in (("dit", module.dit), ("audio_projection", module.audio_projection)):
                load_part(net, recipe.loop.init, part)
        else:
            module.dit.init_weights()
            module.audio_projection.init_weights()
            if recipe.objective.init_from:
                for line in warm_start(module.dit, recipe.objective.init_from).lines():
                    logger.info("%s: %s", recipe.objective.init_from, line)
        if recipe.objective.lora_rank:
            add_lora(module, recipe.objective.lora_rank)
        self.module: nn.Module = module
        self._net = module
        self.manifest = Manifest(recipe.data.folder)
        noisy = recipe.objective.pixel_noise_copies
        self.stores = {
            split: LatentStore(
                recipe.data.folder, split, min_frames=config.clip_frames, noisy=noisy, movement=projection.movement
            )
            for split in ("train", "val")
        }
        self._autoencoder: Any = None
        self._validation: Window | None = None

    def refresh(self, limit: int | None = None) -> int:
        position = self.manifest.refresh(limit)
        before = [len(s) for s in self.stores.values()]
        for store in self.stores.values():
            store.update(self.manifest)
        counts = [len(s) for s in self.stores.values()]
        if counts != before:
            logger.info("latents in memory: %d clips to train on, %d to validate", *counts)
        self._net.image_size = self.stores["train"].image_size
        return position

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        snapshot = self.stores["train"].snapshot()
        self._check(snapshot.tensors)

        def make() -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(seed)
            share = self.recipe.objective.blink_share
            clips = draw_clips(snapshot, self.recipe.data.batch_size, generator, blinks=share)
            return self._draw(snapshot, clips, generator, training=True).tensors()

        return make

    def _draw(self, snapshot: Any, clips: Tensor, generator: torch.Generator, *, training: bool) -> Window:
        config, o = self.recipe.model, self.recipe.objective
        return draw_windows(
            snapshot,
            clips,
            generator,
            clip_frames=config.clip_frames,
            memory_frames=config.memory_frames,
            anchor_frames=config.anchor_frames,
            audio_window=self.recipe.projection.window,
            cold_start=o.cold_start if training else 0.0,
            far_portrait=o.far_portrait if training else 0.0,
            noisy=o.pixel_noise_copies and training,
        )

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """Whether the latents fit the networks. Raises: ConfigError."""
        channels, layers, dim = tensors["frames"].shape[1], *tensors["audio"].shape[1:]
        config, projection = self.recipe.model, self.recipe.projection
        for name, needed, found in (
            ("[model] in_channels", config.in_channels, channels),
            ("[projection] layers", projection.layers, layers),
            ("[projection] encoder_dim", projection.encoder_dim, dim),
        ):
            if needed != found:
                raise ConfigError(f"{name}={needed}, but the latents in {self.recipe.data.folder} have {found}")

    def _validation_windows(self) -> Window | None:
        """Fixed windows of the validation split; None while it has no latents."""
        if self._validation is None or len(self._validation.frames) < self.recipe.data.validation_items:
            try:
                snapshot = self.stores["val"].snapshot()
            except MediaError:
                return None
            clips = torch.arange(min(self.recipe.data.validation_items, len(snapshot.starts)))
            generator = torch.Generator().manual_seed(seed_of("val", len(clips)))
            with without_autocast("cpu"):  # on a CPU it cannot join the float16 tensors of a store
                self._validation = self._draw(snapshot, clips, generator, training=False)
        return self._validation

    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Loss with fixed noise at evenly spread levels, by level; and the loss with another clip's sound."""
        windows = self._validation_windows()
        if windows is None:
            return {}
        count = len(windows.frames)
        times = (torch.arange(count) * 0.6180339887 + 0.5) % 1 * 0.98 + 0.01  # even, whatever the order of clips
        generator = torch.Generator().manual_seed(7)
        noise = torch.randn(windows.frames.shape, generator=generator)
        own: list[Tensor] = []
        other: list[Tensor] = []
        for chunk in torch.arange(count).split(self.recipe.data.batch_size):
            batch = {k: v[chunk].to(device) for k, v in windows.tensors().items()}
            clean, known, weights = self._net.prepare(batch)
            foreign = self._net.audio_projection(windows.audio[(chunk + 1) % count].float().to(device))
            for heard, losses in ((known, own), (replace(known, audio=foreign), other)):
                noisy = clean, noise[chunk].to(device), times[chunk].to(device)
                losses.append(self._net.losses(*noisy, heard, weights)[0].cpu())
        loss, shuffled = torch.cat(own), torch.cat(other)
        values = {"loss": float(loss.mean()), "loss_other_audio": float(shuffled.mean())}
        bucket = (times * BUCKETS).long().clamp(max=BUCKETS - 1)
        for i in range(BUCKETS):
            if (bucket == i).any():
                values[f"loss_{i}"] = float(loss[bucket == i].mean())
        return values

    def sample(self, path: Path, device: torch.device) -> None:
        """For a few validation clips: portrait and true frames (decoded), and below them the generated ones."""
        windows = self._validation_windows()
        if windows is None or not self.recipe.objective.autoencoder:
            return
        from letstalk_core.networks.load import load_model
        from letstalk_core.sampling.clip import Clip, SolverClipSampler
        from letstalk_core.sampling.denoisers import make_denoiser
        from letstalk_core.sampling.schedules import default_shift, make_sigmas

        if self._autoencoder is None:
            self._autoencoder = load_model(self.recipe.objective.autoencoder, "autoencoder", device=device)
        count = min(self.recipe.objective.sample_clips, len(windows.frames))
        batch = {k: v[:count].to(device) for k, v in windows.tensors().items()}
        clean, conditions, _ = self._net.prepare(batch)
        steps, config = self.recipe.objective.sample_steps, self.recipe.model
        sampler = SolverClipSampler(
            make_denoiser(self._net.dit), "euler", make_sigmas(config.prediction, steps, default_shift(config))
        )
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(11)).to(device)
        made = sampler(noise, conditions, Clip(0, 0, clean.shape[1]))
        pick = torch.linspace(0, clean.shape[1] - 1, min(STRIP_FRAMES, clean.shape[1])).round().long().to(device)
        rows = []
        for i in range(count):
            for video in (clean[i], made[i]):
                latents = torch.cat([conditions.portrait[i : i + 1], video[pick]])
                latents = latents / self._autoencoder.config.scaling_factor
                rows.append(list(from_unit(self._autoencoder.decode(latents)).cpu()))
        save_png(grid(rows), path)

    def export(self, folder: Path, device: torch.device) -> list[Path]:
        parts: dict[str, Any] = {
            "dit": (self.recipe.model, self._net.dit),
            "audio_projection": (self.recipe.projection, self._net.audio_projection),
        }
        halves = {k: (c, {n: t.half() for n, t in merged_state(net).items()}) for k, (c, net) in parts.items()}
        hashes = {f"letstalk.{k}": v for k, v in self.stores["train"].hashes.items() if v}
        save_checkpoint(folder / FILE, halves, {"letstalk.recipe": "dit", **hashes})
        if not self.recipe.objective.lora_rank:
            return [folder / FILE]
        names = {
            "diffusion_model.": self._net.dit,
            "diffusion_model.audio_projection.": self._net.audio_projection,
        }
        changes = {k: t for prefix, net in names.items() for k, t in lora_tensors(net, prefix).items()}
        save_tensors(folder / LORA_FILE, changes, hashes)
        return [folder / FILE, folder / LORA_FILE]
