"""Training of a small audio encoder: it learns to read mouth shapes out of synthetic speech.

espeak-ng gives exact phoneme times, hence exact mouth curves (jaw, wide, round, teeth, voiced, energy) at 25 fps.
Linear heads on every layer regress them; only the encoder is exported, its states are what the denoiser reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from letstalk_core.media.audio.alignment import SAMPLES_PER_FRAME
from letstalk_core.networks.audio_encoder import AudioEncoder, normalise_waveform, save_audio_encoder

from ..data.synthetic.speech_library import SpeechLibrary, mixture, prepared
from ..data.synthetic.texts import Speaker, random_utterance
from ..data.synthetic.visemes import CURVES, viseme_curves
from ..output import pyplot, save_figure, save_tensors
from .audio_augment import disturb
from .config import AudioRecipe
from .runtime import load_part, seed_of

__all__ = ["AudioStage", "UtteranceCache"]

logger = logging.getLogger(__name__)
FPS = 25
FILE, HEAD_FILE = "audio_encoder.safetensors", "audio_head.safetensors"
SPLITS = {"train": "train", "val": "held_out"}  # split of a run -> split of words and voices


class UtteranceCache:
    """Spoken sentences with their mouth curves, made once and kept in a folder, one file each.

    Utterance i of a split depends on (seed, split, i) alone, so an interrupted making goes on where it was.
    """

    def __init__(self, folder: str | Path, seed: int = 0, speak: Speaker | None = None, source: str = "") -> None:
        """`speak` says them, by default espeak-ng; `source` tells its utterances from others in file names."""
        self.folder = Path(folder) / "utterances"
        self.seed, self.speak, self.source = seed, speak, f"{source}-" if source else ""

    def load(
        self, split: str, count: int, min_seconds: float, *, first: int = 0, stride: int = 1
    ) -> list[tuple[Tensor, Tensor]]:
        """(waveform (s,) int16 of whole frames, curves (frames, 6) float16) of each; missing ones are made.

        `first` and `stride` divide the making between processes.
        """
        items = []
        for index in range(first, count, stride):
            path = self.folder / f"{split}-{self.seed}-{self.source}{index:05d}.safetensors"
            item = self._read(path, min_seconds)
            if item is None:
                item = self._make(path, split, index, min_seconds)
                if (index + 1) % 200 == 0:
                    logger.info("%d of %d %s utterances spoken", index + 1, count, split)
            items.append(item)
        return items

    def _read(self, path: Path, min_seconds: float) -> tuple[Tensor, Tensor] | None:
        if not path.is_file():
            return None
        try:
            with safe_open(str(path), framework="pt") as file:
                audio, curves = file.get_tensor("audio"), file.get_tensor("curves")
        except (OSError, SafetensorError):
            return None
        return (audio, curves) if len(curves) >= min_seconds * FPS else None

    def _make(self, path: Path, split: str, index: int, min_seconds: float) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(seed_of("utterance", self.seed, split, index))
        utterance = (self.speak or random_utterance)(rng, SPLITS[split], min_seconds + 1 / FPS)
        frames = len(utterance.waveform) // SAMPLES_PER_FRAME
        curves = torch.from_numpy(viseme_curves(utterance, FPS, frames)).half()
        wave = torch.from_numpy(utterance.waveform[: frames * SAMPLES_PER_FRAME])
        audio = (wave.clamp(-1, 1) * 32767).to(torch.int16)
        save_tensors(path, {"audio": audio, "curves": curves})
        return audio, curves


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
        objective, data = recipe.objective, recipe.data
        torch.manual_seed(recipe.loop.seed)
        encoder = AudioEncoder(recipe.model)
        module = _AudioModule(encoder, objective.column_weights, objective.layer_loss)
        if recipe.loop.init:
            load_part(encoder, recipe.loop.init, "audio_encoder")
        self.encoder, self.curves = encoder, module.curves
        self.module: nn.Module = module
        seconds = objective.crop_seconds[1]
        cache = UtteranceCache(data.folder, recipe.loop.seed)
        library = _library(recipe)
        spoken = cache if library is None else _of_library(recipe, library, objective.speech_share)
        self.items = spoken.load("train", objective.utterances, seconds)
        # the same sentences with and without a library, so that runs compare
        self.held_out = cache.load("val", data.validation_items, seconds)
        self.held_out_library: list[tuple[Tensor, Tensor]] = []
        if library is not None and any(library.voices("held_out").values()):
            self.held_out_library = _of_library(recipe, library, 1.0).load("val", data.validation_items, seconds)

    def refresh(self, limit: int | None = None) -> int:
        return len(self.items)  # nothing is added while training

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: self._batch(torch.Generator().manual_seed(seed))

    def _batch(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Crops of one random length; a tenth is silent, so that rest is learnt too."""
        objective, count = self.recipe.objective, self.recipe.data.batch_size
        low, high = (round(s * FPS) for s in objective.crop_seconds)
        frames = int(torch.randint(low, high + 1, (), generator=generator))
        waves, curves = [], []
        for index in torch.randint(len(self.items), (count,), generator=generator).tolist():
            audio, target = self.items[index]
            first = int(torch.randint(len(target) - frames + 1, (), generator=generator))
            start = first * SAMPLES_PER_FRAME
            waves.append(audio[start : start + frames * SAMPLES_PER_FRAME].float() / 32768)
            curves.append(target[first : first + frames])
        audio = disturb(torch.stack(waves), generator, objective.augment)
        # the loudness of a crop differs from that of its recording, which is what inference normalises by
        gain = torch.exp(0.2 * torch.randn(count, generator=generator))
        return {"audio": audio, "curves": torch.stack(curves), "gain": gain}

    def _found_curves(
        self, items: list[tuple[Tensor, Tensor]], device: torch.device
    ) -> list[tuple[Tensor, Tensor]]:
        """(found, true) curves of utterances, each encoded as a whole as in use."""
        pairs = []
        for audio, target in items:
            found = self.curves((audio.float() / 32768).to(device), len(target))
            pairs.append((found.float().cpu(), target.float()))
        return pairs

    def validate(self, device: torch.device) -> Mapping[str, float]:
        values: dict[str, float] = {}
        for prefix, items in (("", self.held_out), ("library_", self.held_out_library)):
            if not items:
                continue
            found, true = (torch.cat(side) for side in zip(*self._found_curves(items, device), strict=True))
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
        pairs = self._found_curves(self.held_out[:3], device)
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


def _library(recipe: AudioRecipe) -> SpeechLibrary | None:
    """Recordings and engines that the recipe names, kept beside its utterances."""
    wanted = recipe.objective
    if not wanted.recordings and not wanted.engines:
        return None
    folder = Path(recipe.data.folder) / "speech"
    return prepared(folder, recordings=wanted.recordings, engines=wanted.engines)


def _of_library(recipe: AudioRecipe, library: SpeechLibrary, share: float) -> UtteranceCache:
    source = f"{library.digest}-{round(100 * share)}"
    return UtteranceCache(recipe.data.folder, recipe.loop.seed, mixture(library, share), source)


def _half(encoder: AudioEncoder) -> AudioEncoder:
    """A float16 copy on the CPU, for saving."""
    copy = AudioEncoder(encoder.config)
    copy.load_state_dict({k: v.cpu() for k, v in encoder.state_dict().items()})
    return copy.half()
