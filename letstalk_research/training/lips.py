"""Training of the lips: what they do, read from the states that an audio encoder makes of speech.

No clip is needed: utterances whose phone times are known have exact curves (`training.speech`), by the rules of
lips on photographs (`data.synthetic.lip_rules`). Loss: squared
error of the curves and of their changes from frame to frame, and whether lips meet as a question of its own: the
mean over what may have been said leaves a mouth open at an m, which is what viewers see first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from letstalk_core.errors import ConfigError
from letstalk_core.networks.audio_encoder import AudioEncoder, normalise_waveform
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.load import DEMO_FOLDER, load_model
from letstalk_core.networks.motion_channels import LIPS

from ..data.synthetic.lip_rules import lip_curves
from .config import LipsObjective, LipsRecipe
from .runtime import load_part
from .speech import Speech

FILE = "lips.safetensors"
JAW, WIDE, ROUND, TEETH = (LIPS.index(name) for name in ("jaw", "wide", "round", "teeth"))
SHUT, MOVED = 0.03, 0.1  # a jaw below this is shut; a curve that moves by less than this has no correlation
NEAR = 1  # frames by which lips may meet too early or too late
PAUSE = 5  # frames at least that a mouth is shut in a pause; odd
MEASURED = 200  # utterances that give the mean and spread of the states


class _LipsModule(nn.Module):
    """The network with its loss, and the disturbances that keep it from learning voices by heart."""

    def __init__(self, lips: Lips, objective: LipsObjective) -> None:
        super().__init__()
        self.lips, self.objective = lips, objective

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: states (b, f + window - 1, layers, d), curves (b, f, 4)."""
        o, states, true = self.objective, batch["states"], batch["curves"]
        std = self.lips.std.view(states.shape[-2:])
        found = self.lips.curves(states + o.noise * std * torch.randn_like(states), dropout=o.dropout)
        curves = found[..., : len(LIPS)]
        level = (curves - true).square().mean()
        change = (curves.diff(dim=1) - true.diff(dim=1)).square().mean()
        loss, parts = level + o.change_weight * change, {"level": level.detach(), "change": change.detach()}
        if self.lips.config.tells_shut:
            meeting = (true[..., JAW] < SHUT).float()
            shut = nn.functional.binary_cross_entropy_with_logits(found[..., len(LIPS)], meeting)
            loss, parts["shut"] = loss + o.shut_weight * shut, shut.detach()
        return loss, parts


class LipsOutput:
    """What stages of `training.loop` that train lips put out."""

    channels_last = False
    recipe: LipsRecipe
    lips: Lips

    def sample(self, path: Path, device: torch.device) -> None:
        """Curves make no picture."""

    def export(self, folder: Path, device: torch.device) -> list[Path]:
        state = {k: v.half() for k, v in self.lips.state_dict().items()}
        save_checkpoint(folder / FILE, {"lips": (self.recipe.model, state)}, {"letstalk.recipe": "lips"})
        return [folder / FILE]


class LipsStage(LipsOutput):
    """Stage of `training.loop`: speech and the states of a frozen audio encoder, validation, export."""

    def __init__(self, recipe: LipsRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.loop.seed)
        self.lips = Lips(recipe.model)
        self.lips.init_weights()
        self.module: nn.Module = _LipsModule(self.lips, recipe.objective)
        path = Path(recipe.objective.audio_encoder or DEMO_FOLDER / "audio_encoder.safetensors")
        encoder = load_model(path, "audio_encoder")
        assert isinstance(encoder, AudioEncoder)
        self.encoder = encoder.eval().requires_grad_(False)  # it hears on the CPU, beside the training
        shape = (encoder.config.num_hidden_layers, encoder.config.hidden_size)
        if (recipe.model.layers, recipe.model.encoder_dim) != shape:
            raise ConfigError(
                f"model.layers={recipe.model.layers}, encoder_dim={recipe.model.encoder_dim}: {path} has"
                f" {shape[0]} layers of {shape[1]}; set both to that"
            )
        self.speech = Speech(recipe.objective, recipe.data, recipe.loop.seed, lip_curves)
        if recipe.loop.init:
            load_part(self.lips, recipe.loop.init, "lips")
        else:
            some = [(a.float() / 32768, len(curves)) for a, curves in self.speech.items[:MEASURED]]
            states = torch.cat([self.encoder.features(wave, frames).flatten(1) for wave, frames in some])
            self.lips.mean.copy_(states.mean(0))
            self.lips.std.copy_(states.std(0).clamp(min=1e-3))

    def refresh(self, limit: int | None = None) -> int:
        return len(self.speech.items)  # nothing is added while training

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: self._batch(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _batch(self, generator: torch.Generator) -> dict[str, Tensor]:
        """States of crops, and the curves of those of their frames that the network sees all around."""
        crops, margin = self.speech.crops(generator), self.lips.window // 2
        curves = crops["curves"].float()[:, margin:-margin]
        sound = normalise_waveform(crops["audio"]) * crops["gain"][:, None]
        return {"states": self.encoder(sound, crops["curves"].shape[1]).float(), "curves": curves}

    @torch.no_grad()
    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Of held-out speech: squared error; mean correlation of an utterance where a curve moves; of lips that
        meet within speech the share that is shut within a frame, and of shut ones the share that should be."""

        def read(sound: Tensor, frames: int) -> Tensor:
            states, margin = self.encoder.features(sound, frames), self.lips.window // 2
            around = states[torch.arange(-margin, frames + margin).clamp(0, frames - 1)]
            return self.lips.said(self.lips.curves(around[None].to(device)))[0]

        values: dict[str, float] = {}
        for prefix, pairs in self.speech.measure(read).items():
            found, true = [f for f, _ in pairs], [t for _, t in pairs]
            values[f"{prefix}mse"] = float((torch.cat(found) - torch.cat(true)).square().mean())
            said = zip(map(_said, found), map(_said, true), strict=True)
            scores: dict[str, list[Tensor]] = {"jaw": [], "wide_round": [], "teeth": []}
            for one, other in said:
                for name, x, y in zip(scores, one, other, strict=True):
                    if float(y.max() - y.min()) > MOVED:
                        scores[name].append(torch.corrcoef(torch.stack([x, y]))[0, 1].nan_to_num(0.0))
            for name, each in scores.items():
                values[prefix + name] = float(torch.stack(each).mean()) if each else math.nan
            shut = [[curves[:, JAW] < SHUT for curves in each] for each in (true, found)]
            values[f"{prefix}met"], values[f"{prefix}meant"] = _met(*shut), _met(*shut[::-1])
        return values


def _said(curves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What of curves (f, 4) is compared: jaw, wide against round, teeth."""
    return curves[:, JAW], curves[:, WIDE] - curves[:, ROUND], curves[:, TEETH]


def _grown(marks: Tensor, frames: int) -> Tensor:
    """(f,) bool, each mark wider by `frames` on both sides."""
    pooled = nn.functional.max_pool1d(marks.float()[None], 2 * frames + 1, 1, frames)
    return pooled[0] > 0


def _short(marks: Tensor) -> Tensor:
    """The marks (f,) of those runs that are no pause."""
    inside = ~_grown(~marks, PAUSE // 2)  # centres of runs of PAUSE frames at least
    return marks & ~_grown(inside, PAUSE // 2)


def _met(asked: list[Tensor], found: list[Tensor]) -> float:
    """The share of `asked` meetings within speech, each with a frame of `found` at most NEAR away."""
    pairs = [(_short(a), _grown(f, NEAR)) for a, f in zip(asked, found, strict=True)]
    count = sum(int(a.sum()) for a, _ in pairs)
    return sum(int((a & f).sum()) for a, f in pairs) / count if count else math.nan
