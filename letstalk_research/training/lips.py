"""Training of the lips: what they do in a clip, read from the states that the audio encoder made of its sound.

A folder of encoded clips has both (`data.latents`); pictures are not looked at. Whole clips are used, the states
at their ends repeated as `media.audio.features` does. Loss: squared error of the curves and of their changes from
frame to frame, shut lips counted more, for a mouth that misses an m is what viewers see first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from letstalk_core.errors import ConfigError
from letstalk_core.networks.checkpoint import load_into, load_tensors, read_header, save_checkpoint
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.motion_channels import LIPS

from ..data.latents import LatentStore
from ..data.manifest import Manifest
from .config import LipsObjective, LipsRecipe

__all__ = ["FILE", "LipsStage"]

FILE = "lips.safetensors"
JAW, WIDE, ROUND, TEETH = (LIPS.index(name) for name in ("jaw", "wide", "round", "teeth"))
SHUT, MOVED = 0.05, 0.1  # a jaw below this is shut; clips have a correlation where a curve moves by this at least


class _LipsModule(nn.Module):
    """The network with its loss, and the disturbances that keep it from learning voices by heart."""

    def __init__(self, lips: Lips, objective: LipsObjective) -> None:
        super().__init__()
        self.lips, self.objective = lips, objective

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: states (b, f + window - 1, layers, d), curves (b, f, 4), known (b, f), 0 behind a clip's end."""
        o, states, known = self.objective, batch["states"].float(), batch["known"]
        std = self.lips.std.view(states.shape[-2:])
        found = self.lips.curves(states + o.noise * std * torch.randn_like(states), dropout=o.dropout)
        error = found - batch["curves"]
        weight = known * (1 + o.shut_weight * (batch["curves"][..., JAW] < SHUT))
        level = (error.square().mean(-1) * weight).sum() / known.sum()
        change = (error.diff(dim=1).square().mean(-1) * known[:, 1:]).sum() / known[:, 1:].sum().clamp(min=1)
        return level + o.change_weight * change, {"level": level.detach(), "change": change.detach()}


class LipsStage:
    """Stage of `training.loop`: states and curves of encoded clips, validation on other people, export."""

    channels_last = False

    def __init__(self, recipe: LipsRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.lips = Lips(recipe.model)
        self.lips.init_weights()
        self.module: nn.Module = _LipsModule(self.lips, recipe.objective)
        folder = recipe.data.folder
        self.manifest = Manifest(folder)
        self.clips = {s: LatentStore(folder, s, min_frames=2, movement=LIPS) for s in ("train", "val")}
        self.refresh()
        states = self.clips["train"].snapshot().tensors["audio"].float()
        if states.shape[1:] != (recipe.model.layers, recipe.model.encoder_dim):
            raise ConfigError(
                f"model.layers={recipe.model.layers}, encoder_dim={recipe.model.encoder_dim}: the clips of"
                f" {folder} have {states.shape[1]} layers of {states.shape[2]}; set both to that"
            )
        self.lips.mean.copy_(states.flatten(1).mean(0))
        self.lips.std.copy_(states.flatten(1).std(0).clamp(min=1e-3))
        if recipe.loop.init:
            name, _ = read_header(recipe.loop.init).part("lips")
            load_into(self.lips, load_tensors(recipe.loop.init, prefix=f"{name}."), recipe.loop.init)

    def refresh(self, limit: int | None = None) -> int:
        position = self.manifest.refresh(limit)
        for store in self.clips.values():
            store.update(self.manifest)
        return position

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        store, count = self.clips["train"], self.recipe.data.batch_size
        clips = len(store)

        def make() -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(seed)
            return self._batch(store, torch.randint(clips, (count,), generator=generator))

        return make

    def _batch(self, store: LatentStore, chosen: Tensor) -> dict[str, Tensor]:
        """Whole clips, as many frames as the longest of them has."""
        known, margin = store.snapshot(), self.lips.window // 2
        starts, lengths = known.starts[chosen, None], known.lengths[chosen, None]
        frames = int(lengths.max())
        rows = starts + torch.arange(-margin, frames + margin).clamp(min=0).minimum(lengths - 1)
        curves = known.tensors["movement"][rows[:, margin : margin + frames]]
        inside = (torch.arange(frames) < lengths).float()
        return {"states": known.tensors["audio"][rows], "curves": curves, "known": inside}

    @torch.no_grad()
    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Squared error, mean correlation per clip where a curve moves, and jaw where the true one is shut."""
        store = self.clips["val"]
        if not len(store):
            return {}
        batch = self._batch(store, torch.arange(min(len(store), self.recipe.data.validation_items)))
        found, true = self.lips.curves(batch["states"].to(device)).clamp(0, 1).cpu(), batch["curves"]
        inside = batch["known"] > 0
        values = {"mse": float((found - true)[inside].square().mean())}
        for name, x, y in zip(("jaw", "wide_round", "teeth"), _said(found), _said(true), strict=True):
            scores = [
                torch.corrcoef(torch.stack([a[k], b[k]]))[0, 1].nan_to_num(0.0)
                for a, b, k in zip(x, y, inside, strict=True)
                if float(b[k].max() - b[k].min()) > MOVED
            ]
            values[name] = float(torch.stack(scores).mean()) if scores else math.nan
        values["shut_jaw"] = float(found[inside & (true[..., JAW] < SHUT)][:, JAW].mean())
        return values

    def sample(self, path: Path, device: torch.device) -> None:
        """Curves make no picture."""

    def export(self, folder: Path, device: torch.device) -> list[Path]:
        state = {k: v.half() for k, v in self.lips.state_dict().items()}
        save_checkpoint(folder / FILE, {"lips": (self.recipe.model, state)}, {"letstalk.recipe": "lips"})
        return [folder / FILE]


def _said(curves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What of curves (n, f, 4) is compared: jaw, wide against round, teeth."""
    return curves[..., JAW], curves[..., WIDE] - curves[..., ROUND], curves[..., TEETH]
