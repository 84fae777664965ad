"""A folder of spoken sentences with their phones, from which utterances are drawn beside espeak-ng's.

Sentences are spoken by engines or read by people once; each draw joins some of one voice and varies them. One
safetensors file a sentence: `audio` int16 at 16 kHz, and phones, voice, text, kind and split as metadata.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from safetensors import SafetensorError, safe_open

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ

from ...output import save_tensors
from .recordings import aligned, cut_at_pauses, read_recordings
from .speech import Phoneme, Utterance, join, silence
from .texts import SPLITS, Speaker, random_sentence, random_utterance
from .variation import varied
from .voices import available_voices, speak

logger = logging.getLogger(__name__)
KINDS = ("recording", "engine")
PACE_MARGIN = 1.4  # varied speech is at most this much shorter


@dataclass(frozen=True)
class _Entry:
    path: Path
    kind: str
    voice: str
    split: str
    seconds: float


class SpeechLibrary:
    """The sentences of a folder. Same files and same `rng`: same utterances."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._entries = [_header(p) for p in sorted(self.folder.glob("*.safetensors"))]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def digest(self) -> str:
        """Eight hex digits that change with the names of the sentences."""
        return f"{zlib.crc32(' '.join(e.path.name for e in self._entries).encode()):08x}"

    def voices(self, split: str) -> dict[str, list[str]]:
        """Voices of a split that have sentences, by kind ("recording", "engine")."""
        return {k: sorted({e.voice for e in self._entries if (e.kind, e.split) == (k, split)}) for k in KINDS}

    def add(self, name: str, utterance: Utterance, *, kind: str, split: str) -> None:
        """Write one sentence. Raises: ConfigError, OutputError."""
        if kind not in KINDS or split not in SPLITS:
            raise ConfigError(f"kind={kind!r} must be one of {KINDS} and split={split!r} one of {SPLITS}")
        path = self._path(name)
        audio = torch.from_numpy(np.round(np.clip(utterance.waveform, -1, 1) * 32767).astype(np.int16))
        phones = [[p.symbol, round(p.start_s, 5), round(p.end_s, 5)] for p in utterance.phonemes]
        metadata = {"kind": kind, "split": split, "voice": utterance.voice, "text": utterance.text}
        save_tensors(path, {"audio": audio}, {**metadata, "phones": json.dumps(phones)})
        self._entries = sorted(
            [e for e in self._entries if e.path != path]
            + [_Entry(path, kind, utterance.voice, split, utterance.seconds)],
            key=lambda e: e.path.name,
        )

    def add_recordings(self, folder: str | Path) -> None:
        """Align the recordings of a folder (see `recordings`) that the library does not have, and cut them."""
        folder = Path(folder).resolve()
        prefix = f"{folder.name}-{zlib.crc32(str(folder).encode()):08x}"
        new = [r for r in read_recordings(folder) if not self._has(f"{prefix}-{r.name}-00")]
        for recording, utterance in aligned(new):
            pieces = cut_at_pauses(utterance)
            for i in reversed(range(len(pieces))):  # the first is written last: then all of them are there
                name = f"{prefix}-{recording.name}-{i:02d}"
                self.add(name, pieces[i], kind="recording", split=recording.split)
        logger.info("%s: %d new recordings aligned", folder, len(new))

    def add_engines(self, engines: Sequence[str], sentences: int, seed: int = 0) -> None:
        """Let every voice of the engines speak `sentences` sentences of its split.

        Raises: DependencyError for an engine that is not installed.
        """
        for voice in available_voices(tuple(engines)):
            split = "held_out" if voice.held_out else "train"
            for i in range(sentences):
                name = f"{voice.engine}-{voice.name}-{seed}-{i:05d}"
                if self._has(name):
                    continue
                rng = np.random.default_rng([seed, zlib.crc32(str(voice).encode()), i])
                text = random_sentence(rng, voice.language, split)
                utterance = speak(text, voice, stretch=float(rng.uniform(0.9, 1.25)))
                self.add(name, utterance, kind="engine", split=split)
            logger.info("%s: %d sentences", voice, sentences)

    def draw(self, rng: Generator, split: str, min_seconds: float) -> Utterance:
        """Sentences of one random voice, varied, with pauses between and silence around as `texts` has them.

        Recordings and engines are drawn equally often. Raises: ConfigError without sentences of the split.
        """
        by_kind = {kind: voices for kind, voices in self.voices(split).items() if voices}
        if not by_kind:
            raise ConfigError(f"{self.folder}: has no sentences of split={split!r}; add recordings or engines")
        kind = str(rng.choice(sorted(by_kind)))
        voice = str(rng.choice(by_kind[kind]))
        choices = [e for e in self._entries if (e.kind, e.voice, e.split) == (kind, voice, split)]
        lead = rng.uniform(0.0, 0.8) if rng.random() < 0.35 else 0.0
        trail = rng.uniform(0.0, 0.8) if rng.random() < 0.35 else 0.0
        parts: list[Utterance] = []
        while not parts or sum(p.seconds for p in parts) < PACE_MARGIN * min_seconds:
            if parts and rng.random() < 0.4:
                parts.append(silence(rng.uniform(0.1, 0.6)))
            parts.append(_read(choices[int(rng.integers(len(choices)))].path))
        return join([silence(lead), varied(join(parts), rng), silence(trail)])

    def _path(self, name: str) -> Path:
        if Path(name).name != name or name.startswith("."):
            raise ConfigError(f"name {name!r} of a sentence must be a file name")
        return self.folder / f"{name}.safetensors"

    def _has(self, name: str) -> bool:
        return self._path(name).is_file()


def prepared(
    folder: str | Path, *, recordings: Sequence[str | Path] = (), engines: Sequence[str] = (), sentences: int = 200
) -> SpeechLibrary:
    """The library of a folder with these recordings and engines, made if missing.

    Raises: as `add_recordings` and `add_engines`.
    """
    library = SpeechLibrary(folder)
    for each in recordings:
        library.add_recordings(each)
    if engines:
        library.add_engines(engines, sentences)
    return library


def mixture(library: SpeechLibrary, share: float) -> Speaker:
    """Draws `share` of the utterances from a library and the others from espeak-ng.

    A split of which the library has nothing is espeak-ng's alone. Raises: ConfigError.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share={share} of the library must be in 0..1")

    def draw(rng: Generator, split: str, min_seconds: float) -> Utterance:
        from_library = rng.random() < share and any(library.voices(split).values())
        return library.draw(rng, split, min_seconds) if from_library else random_utterance(rng, split, min_seconds)

    return draw


def _header(path: Path) -> _Entry:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            samples = file.get_slice("audio").get_shape()[0]
        return _Entry(path, metadata["kind"], metadata["voice"], metadata["split"], samples / SAMPLE_RATE_HZ)
    except (OSError, SafetensorError, KeyError) as error:
        raise MediaError(f"{path}: is not a spoken sentence ({error}); delete it") from None


def _read(path: Path) -> Utterance:
    try:
        with safe_open(str(path), framework="pt") as file:
            audio, metadata = file.get_tensor("audio"), file.metadata()
        phones = tuple(Phoneme(str(s), float(a), float(b)) for s, a, b in json.loads(metadata["phones"]))
        return Utterance(audio.numpy().astype(np.float32) / 32767, phones, metadata["voice"], metadata["text"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise MediaError(f"{path}: is not a spoken sentence ({error}); delete it") from None
