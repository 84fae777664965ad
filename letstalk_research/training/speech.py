"""The speech that audio encoder and lips learn from: utterances with exact mouth curves, spoken once.

espeak-ng gives exact phoneme times, and so do the engines and aligned recordings of a speech library; the curves
at 25 frames per second follow from them by rules: those of drawn faces (`data.synthetic.visemes`: jaw, wide,
round, teeth, voiced, energy), or others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from letstalk_core.media.audio.alignment import SAMPLES_PER_FRAME

from ..data.synthetic.speech import Phoneme, Utterance
from ..data.synthetic.speech_library import SpeechLibrary, mixture, prepared
from ..data.synthetic.texts import Speaker, random_utterance
from ..data.synthetic.visemes import viseme_curves
from ..output import save_tensors
from .audio_augment import disturb
from .config import DataConfig, SpeechObjective
from .runtime import seed_of

logger = logging.getLogger(__name__)
FPS = 25
PHONES = "phones"  # metadata of a file: sign, start and end in seconds of each
SPLITS = {"train": "train", "val": "held_out"}  # split of a run -> split of words and voices
Item = tuple[Tensor, Tensor]  # sound (s,) int16 of whole frames, curves (frames, columns of the rules) float16
Rules = Callable[[Utterance, float, int], NDArray[np.float32]]  # utterance, fps, frames -> curves


class UtteranceCache:
    """Spoken sentences with their mouth curves, made once and kept in a folder, one file each.

    Utterance i of a split depends on (seed, split, i) alone, so an interrupted making goes on where it was. Files
    have the curves of drawn faces and the phones, from which other rules make theirs; stages share the files.
    """

    def __init__(
        self,
        folder: str | Path,
        seed: int = 0,
        speak: Speaker | None = None,
        source: str = "",
        rules: Rules = viseme_curves,
    ) -> None:
        """`speak` says them, by default espeak-ng; `source` tells its utterances from others in file names."""
        self.folder, self.rules = Path(folder) / "utterances", rules
        self.seed, self.speak, self.source = seed, speak, f"{source}-" if source else ""

    def load(self, split: str, count: int, min_seconds: float, *, first: int = 0, stride: int = 1) -> list[Item]:
        """Utterances of a split; missing ones are made. `first` and `stride` share the making among processes."""
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

    def _read(self, path: Path, min_seconds: float) -> Item | None:
        if not path.is_file():
            return None
        try:
            with safe_open(str(path), framework="pt") as file:
                audio, curves = file.get_tensor("audio"), file.get_tensor("curves")
                metadata = file.metadata() or {}
        except (OSError, SafetensorError):
            return None
        if len(curves) < min_seconds * FPS:
            return None
        if self.rules is not viseme_curves:
            if PHONES not in metadata:  # written before there were other rules: spoken again
                return None
            phones = tuple(Phoneme(s, a, b) for s, a, b in json.loads(metadata[PHONES]))
            spoken = Utterance(audio.numpy().astype(np.float32) / 32767, phones)
            curves = torch.from_numpy(self.rules(spoken, FPS, len(curves))).half()
        return audio, curves

    def _make(self, path: Path, split: str, index: int, min_seconds: float) -> Item:
        rng = np.random.default_rng(seed_of("utterance", self.seed, split, index))
        utterance = (self.speak or random_utterance)(rng, SPLITS[split], min_seconds + 1 / FPS)
        frames = len(utterance.waveform) // SAMPLES_PER_FRAME
        curves = torch.from_numpy(viseme_curves(utterance, FPS, frames)).half()
        wave = torch.from_numpy(utterance.waveform[: frames * SAMPLES_PER_FRAME])
        audio = (wave.clamp(-1, 1) * 32767).to(torch.int16)
        phones = [[p.symbol, round(p.start_s, 5), round(p.end_s, 5)] for p in utterance.phonemes]
        save_tensors(path, {"audio": audio, "curves": curves}, {PHONES: json.dumps(phones)})
        made = self._read(path, 0)
        assert made is not None
        return made


class Speech:
    """Training utterances as random crops, and held-out ones as they are.

    `held_out` maps a prefix of names to utterances: "" are espeak-ng's, the same with and without a library, so
    that runs compare; "library_" are the library's. `rules` make the curves of both.
    """

    def __init__(
        self, objective: SpeechObjective, data: DataConfig, seed: int, rules: Rules = viseme_curves
    ) -> None:
        self.objective, self.batch_size = objective, data.batch_size
        seconds, count = objective.crop_seconds[1], data.validation_items
        cache, library = UtteranceCache(data.folder, seed, rules=rules), _library(objective, data)

        def of_library(library: SpeechLibrary, share: float) -> UtteranceCache:
            source = f"{library.digest}-{round(100 * share)}"
            return UtteranceCache(data.folder, seed, mixture(library, share), source, rules)

        spoken = of_library(library, objective.speech_share) if library else cache
        self.items = spoken.load("train", objective.utterances, seconds)
        self.held_out = {"": cache.load("val", count, seconds)}
        if library and any(library.voices("held_out").values()):
            self.held_out["library_"] = of_library(library, 1.0).load("val", count, seconds)

    def crops(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A batch of one random length: audio (b, s) float32, curves (b, f, columns), gain (b,)."""
        objective, count = self.objective, self.batch_size
        low, high = (round(s * FPS) for s in objective.crop_seconds)
        frames = int(torch.randint(low, high + 1, (), generator=generator))
        waves, curves = [], []
        for index in torch.randint(len(self.items), (count,), generator=generator).tolist():
            audio, target = self.items[index]
            first = int(torch.randint(len(target) - frames + 1, (), generator=generator))
            start = first * SAMPLES_PER_FRAME
            waves.append(audio[start : start + frames * SAMPLES_PER_FRAME].float() / 32768)
            curves.append(target[first : first + frames])
        spoken = torch.rand(count, 1, generator=generator) >= objective.silent_share
        audio = disturb(torch.stack(waves) * spoken, generator, objective.augment)
        # the loudness of a crop differs from that of its recording, which is what inference normalises by
        gain = torch.exp(0.2 * torch.randn(count, generator=generator))
        return {"audio": audio, "curves": torch.stack(curves) * spoken[..., None], "gain": gain}

    def measure(self, read: Callable[[Tensor, int], Tensor]) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """(found, true) curves on the CPU of held-out utterances; `read(sound (s,), frames)` hears each whole."""
        return {
            prefix: [(read(a.float() / 32768, len(t)).float().cpu(), t.float()) for a, t in items]
            for prefix, items in self.held_out.items()
        }


def _library(objective: SpeechObjective, data: DataConfig) -> SpeechLibrary | None:
    """Recordings and engines that the recipe names, kept beside its utterances."""
    if not objective.recordings and not objective.engines:
        return None
    folder = Path(data.folder) / "speech"
    return prepared(folder, recordings=objective.recordings, engines=objective.engines)
