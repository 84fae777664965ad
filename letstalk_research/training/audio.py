"""Training of a small audio encoder: it learns to read mouth shapes out of synthetic speech.

espeak-ng gives exact phoneme times, hence exact mouth curves (jaw, wide, round, teeth, voiced, energy) at 25 fps.
Linear heads on every layer regress them; only the encoder is exported, its states are what the denoiser reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from letstalk_core.networks.audio_encoder import AudioEncoder, normalise_waveform, save_audio_encoder

from ..data.synthetic.visemes import CURVES
from ..output import pyplot, save_figure, save_tensors
from .config import AudioRecipe
from .runtime import load_part
from .speech import Speech

FILE, HEAD_FILE = "audio_encoder.safetensors", "audio_head.safetensors"


class _AudioModule(nn.Module):
    """Encoder, one linear head per layer, and the loss."""

    def __init__(self, encoder: AudioEncoder, weights: tuple[float, ...], layer_loss: float) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        layers = range(config.num_hidden_layers)
        self.heads = nn.ModuleList(nn.Linear(config.hidden_size, len(CURVES)) for _ in layers)
        self.layer_loss = layer_loss
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: audio (b, s) float32, curves (b, f, 6)."""
        curves = batch["curves"].float()
        states = self.encoder(normalise_waveform(batch["audio"]) * batch["gain"][:, None], curves.shape[1])
        found = [head(states[:, :, i]).float() for i, head in enumerate(self.heads)]
        errors = [((f - curves).abs() * self.weights).mean() for f in found]
        loss = errors[-1]
        if len(errors) > 1:
            loss = loss + self.layer_loss * torch.stack(errors[:-1]).mean()
        return loss, {"mae": errors[-1].detach()}

    def curves(self, waveform: Tensor, frames: int) -> Tensor:
        """Curves (frames, 6) of a recording (s,), read from the last layer."""
        found: Tensor = self.heads[-1](self.encoder.features(waveform, frames)[:, -1])
        return found


class AudioStage:
    """Stage of `training.loop`: utterances, validation by correlation, and export of the audio encoder."""

    channels_last = False

    def __init__(self, recipe: AudioRecipe) -> None:
        self.recipe = recipe
        objective = recipe.objective
        torch.manual_seed(recipe.loop.seed)
        encoder = AudioEncoder(recipe.model)
        module = _AudioModule(encoder, objective.column_weights, objective.layer_loss)
        if recipe.loop.init:
            load_part(encoder, recipe.loop.init, "audio_encoder")
        self.encoder, self.curves = encoder, module.curves
        self.module: nn.Module = module
        self.speech = Speech(objective, recipe.data, recipe.loop.seed)

    def refresh(self, limit: int | None = None) -> int:
        return len(self.speech.items)  # nothing is added while training

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: self.speech.crops(torch.Generator().manual_seed(seed))

    def validate(self, device: torch.device) -> Mapping[str, float]:
        values: dict[str, float] = {}
        for prefix, pairs in self.speech.measure(lambda wave, n: self.curves(wave.to(device), n)).items():
            found, true = (torch.cat(side) for side in zip(*pairs, strict=True))
            values[f"{prefix}mae"] = float((found - true).abs().mean())
            for i, name in enumerate(CURVES):
                pair = torch.stack((found[:, i], true[:, i]))
                values[f"{prefix}corr_{name}"] = float(torch.corrcoef(pair)[0, 1])
        return values

    def sample(self, path: Path, device: torch.device) -> None:
        """Found and true curves of three held-out utterances."""
        plot = pyplot()
        if plot is None:
            return
        pairs = self.speech.measure(lambda wave, n: self.curves(wave.to(device), n))[""][:3]
        figure, axes = plot.subplots(4, len(pairs), figsize=(5 * len(pairs), 8), squeeze=False)
        for column, (found, true) in enumerate(pairs):
            for row in range(4):
                axes[row, column].plot(true[:, row], linewidth=1)
                axes[row, column].plot(found[:, row], linewidth=1)
                axes[row, column].set_title(CURVES[row], fontsize=8)
                axes[row, column].set_ylim(-0.1, 1.1)
        save_figure(figure, path)

    def export(self, folder: Path, device: torch.device) -> list[Path]:
        save_audio_encoder(folder / FILE, _half(self.encoder), {"letstalk.recipe": "audio"})
        module = self.module
        assert isinstance(module, _AudioModule)
        save_tensors(folder / HEAD_FILE, module.heads[-1].state_dict(), {"curves": ",".join(CURVES)})
        return [folder / FILE, folder / HEAD_FILE]


def _half(encoder: AudioEncoder) -> AudioEncoder:
    """A float16 copy on the CPU, for saving."""
    copy = AudioEncoder(encoder.config)
    copy.load_state_dict({k: v.cpu() for k, v in encoder.state_dict().items()})
    return copy.half()
