"""Training of the masks that carry a portrait's detail to decoded frames; the autoencoder stays as it is.

Frames go through the autoencoder, some with noise on their latents as a denoiser leaves it, and some come out
better than it can, as those of one person's own model do: masks must leave those alone. Loss: region-weighted L1,
L1 of finite differences and at coarser scales, and L1 of the change between neighbouring frames: nothing may boil.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.carry import Carry, CarryReference
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.flow import grow
from letstalk_core.networks.load import load_model
from letstalk_core.pixels import from_unit, to_unit

from ..data.clips import FrameSampler
from ..data.manifest import Manifest
from ..data.pairs import Pair, draw_pairs
from ..output import save_png
from .autoencoder import zoom
from .config import CarryObjective, CarryRecipe
from .losses import gradient_l1, multiscale_l1, psnr, region_psnr, region_weights, weighted_l1
from .plots import grid
from .runtime import load_part, seed_of

FILE = "carry.safetensors"
REFRAME = 0.5  # part of the references that are framed in another way
NOISE = 0.15  # on latents where steadiness is measured, in deviations: what a denoiser leaves


class _CarryModule(nn.Module):
    """The masks with their loss. The autoencoder is no part of it: no weights of it are averaged or saved."""

    def __init__(self, carry: Carry, autoencoder: AutoencoderDC, objective: CarryObjective) -> None:
        super().__init__()
        self.carry, self.objective = carry, objective
        self._frozen = [autoencoder]

    def autoencoder(self, device: torch.device) -> AutoencoderDC:
        self._frozen[0] = self._frozen[0].to(device)
        return self._frozen[0]

    def forward(self, batch: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: see `data.pairs`."""
        o = self.objective
        portraits = to_unit(batch["portraits"])
        frames = to_unit(rearrange(batch["frames"], "b t h w c -> (b t) h w c"))
        with torch.no_grad():
            decoded, again = self._round_trips(portraits, frames)
        own, again = (repeat(v, "b c h w -> (b t) c h w", t=2) for v in (portraits, again))
        reference = self.carry.prepare(own, again)
        maps = self.carry.estimate(decoded, reference)
        error = self.carry.mix(decoded, maps, reference) - frames
        boxes = rearrange(batch["regions"], "b t r c -> (b t) r c")
        weights = region_weights(
            boxes, (o.mouth_weight, o.eyes_weight, o.eyes_weight), *frames.shape[-2:], softness=o.region_softness
        )
        first, second = rearrange(error, "(b t) c h w -> t b c h w", t=2)
        terms = {
            "l1": weighted_l1(error, weights),
            "edges": gradient_l1(error, weights),
            "coarse": multiscale_l1(error),
            "steady": (second - first).abs().mean(),
        }
        loss = terms["l1"] + o.gradient_weight * terms["edges"] + o.multiscale_weight * terms["coarse"]
        loss = loss + o.steady_weight * terms["steady"]
        true = rearrange(batch["flow"], "b t c h w -> (b t) c h w")
        known = true.isfinite()
        if bool(known.any()):
            off = (grow(maps.flow, (true.shape[-2], true.shape[-1])) - true).abs()
            terms["flow"] = off[known].mean()
            loss = loss + o.flow_weight * terms["flow"]
        terms["plain"] = (decoded - frames).abs().mean()
        terms["forms"], terms["detail"] = maps.masks.detach().mean((0, 2, 3)).unbind()
        return loss, terms

    def _round_trips(self, portraits: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What the autoencoder makes of the frames (b t, …), disturbed, and of the portraits (b, …)."""
        o, network, count = self.objective, self.autoencoder(frames.device), len(portraits)
        latents = network.encode(torch.cat([frames, portraits])).float()
        latents, own = latents[: len(frames)], latents[len(frames) :]
        level = o.latent_noise * _rand(count, frames.device) * (_rand(count, frames.device) < o.noisy_share)
        pairs = rearrange(latents, "(b t) c h w -> b t c h w", t=2)
        share = _rand(count, frames.device)[:, None]  # of the noise that stays from frame to frame
        noise = share.sqrt() * torch.randn_like(pairs[:, :1]) + (1 - share).sqrt() * torch.randn_like(pairs)
        pairs = pairs + level[:, None] * latents.std() * noise
        pictures = network.decode(torch.cat([pairs.flatten(0, 1), own])).float().clamp(-1, 1).contiguous()
        decoded, again = pictures[: len(frames)], pictures[len(frames) :]
        better = _rand(count, frames.device) * (_rand(count, frames.device) < o.better_share)
        again = again + better * (portraits - again)
        return decoded + repeat(better, "b c h w -> (b t) c h w", t=2) * (frames - decoded), again


def _rand(count: int, device: torch.device) -> Tensor:
    return torch.rand(count, 1, 1, 1, device=device)


class CarryStage:
    """Stage of `training.loop`: data, validation, samples and export of the masks."""

    channels_last = False  # see networks.carry

    def __init__(self, recipe: CarryRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.carry = Carry(recipe.model)
        self.carry.init_weights()
        if recipe.loop.init:
            load_part(self.carry, recipe.loop.init, "carry")
        autoencoder = load_model(recipe.objective.autoencoder, "autoencoder")
        self._module = _CarryModule(self.carry, autoencoder, recipe.objective)
        self.module: nn.Module = self._module
        self.manifest = Manifest(recipe.data.folder)
        self.sampler = FrameSampler(recipe.data.folder, image_size=autoencoder.config.image_size)
        self._validation: Pair | None = None

    def refresh(self, limit: int | None = None) -> int:
        return self.manifest.refresh(limit)

    def plan_batch(self, seed: int) -> Callable[[], Pair]:
        records, data = self.manifest.select("train"), self.recipe.data

        def make() -> Pair:
            generator = torch.Generator().manual_seed(seed)
            return draw_pairs(self.sampler, records, data.batch_size, generator, flip=data.flip, reframe=REFRAME)

        return make

    @property
    def autoencoder(self) -> AutoencoderDC:
        """The network whose frames the masks see."""
        return self._module.autoencoder(next(self.carry.parameters()).device)

    def validation_pairs(self) -> Pair | None:
        """Pairs of validation clips, one each, chosen when the split first has clips and kept."""
        records = self.manifest.select("val")
        wanted = self.recipe.data.validation_items
        if records and (self._validation is None or len(self._validation["frames"]) < wanted):
            pairs = []
            for i in range(min(wanted, len(records))):
                record = records[i * len(records) // min(wanted, len(records))]
                generator = torch.Generator().manual_seed(seed_of("val", record.id))
                pairs.append(draw_pairs(self.sampler, [record], 1, generator, flip=False))
            self._validation = {k: torch.cat([p[k] for p in pairs]) for k in pairs[0]}
        return self._validation

    def validate(self, device: torch.device) -> Mapping[str, float]:
        pairs = self.validation_pairs()
        if pairs is None:
            return {}
        return carry_quality(self.carry, self._module.autoencoder(device), pairs)

    def sample(self, path: Path, device: torch.device) -> None:
        """Portraits, targets, plain and carried frames, masks; eyes and mouth of targets and carried ones."""
        pairs = self.validation_pairs()
        if pairs is None:
            return
        network, count = self._module.autoencoder(device), min(8, len(pairs["frames"]))
        portraits = pairs["portraits"][:count]
        targets, regions = (pairs[name][:count, 0] for name in ("frames", "regions"))
        own, frames = to_unit(portraits.to(device)), to_unit(targets.to(device))
        decoded = network.decode(network.encode(frames)).float().clamp(-1, 1)
        reference = self.carry.prepare(own, network.decode(network.encode(own)))
        maps = self.carry.estimate(decoded, reference)
        result = self.carry.mix(decoded, maps, reference)
        shown = [from_unit(x).cpu() for x in (decoded, result)]
        size = targets.shape[1] // maps.masks.shape[-2]
        masks = (maps.masks * 255).to(torch.uint8).cpu()
        masks = repeat(masks, "b m h w -> m b (h i) (w j) c", i=size, j=size, c=3)
        rows = [list(portraits), list(targets), *map(list, shown), *map(list, masks)]
        for box in (0, 1):
            for source in (targets, *shown):
                rows.append([zoom(x, regions[i, box]) for i, x in enumerate(source)])
        save_png(grid(rows), path)

    def export(self, folder: Path, device: torch.device) -> list[Path]:
        state = {k: v.half() for k, v in self.carry.state_dict().items()}
        save_checkpoint(folder / FILE, {"carry": (self.recipe.model, state)}, {"letstalk.recipe": "carry"})
        return [folder / FILE]


@torch.no_grad()
def carry_quality(
    carry: Carry, autoencoder: AutoencoderDC, pairs: dict[str, Tensor], seed: int = 1
) -> dict[str, float]:
    """Pairs (see `data.pairs`) through the autoencoder, plain and carried.

    "psnr", "psnr_mouth", "psnr_eyes" in dB of carried frames, the same with "plain_" before it; "flicker" and
    "plain_flicker": rms error, in 8-bit steps, of the difference of neighbouring frames whose latents had noise of
    their own. The images of a person without boxes count in "psnr" only.
    """
    device = next(autoencoder.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {}
    for i in range(len(pairs["frames"])):
        frames = to_unit(pairs["frames"][i].to(device))
        portrait, boxes = to_unit(pairs["portraits"][i : i + 1].to(device)), pairs["regions"][i]
        latents = autoencoder.encode(torch.cat([frames, portrait])).float()
        noise = torch.randn(latents[:2].shape, generator=generator).to(device)
        noisy = latents[:2] + NOISE * latents[:2].std() * noise
        pictures = autoencoder.decode(torch.cat([latents, noisy])).float().clamp(-1, 1)
        clean, again, disturbed = pictures[:2], pictures[2:3], pictures[3:]
        reference = carry.prepare(portrait, again)
        for prefix, network in (("plain_", _same), ("", carry)):
            result = network(clean, reference)
            found.setdefault(f"{prefix}psnr", []).extend(psnr(result, frames).tolist())
            for part, index in (("mouth", [0]), ("eyes", [1, 2])):
                found.setdefault(f"{prefix}psnr_{part}", []).extend(region_psnr(result, frames, boxes, index))
            first, second = network(disturbed, reference) - frames
            rms = (second - first).square().mean().sqrt() * 127.5
            found.setdefault(f"{prefix}flicker", []).append(float(rms))
    return {k: sum(v) / len(v) for k, v in found.items() if v}


def _same(frames: Tensor, reference: CarryReference) -> Tensor:
    return frames
