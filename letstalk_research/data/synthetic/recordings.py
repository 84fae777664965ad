"""Folders of recordings with their texts, as LJSpeech has them: `metadata.csv` and `wavs/`.

Each line is `name|text|text as read|reader|split`; all after the first text may be missing. The text as read has
its numbers in words; `reader` defaults to the folder's name; `split` is train or held_out, by default held_out for
every sixth line. The sound is `wavs/NAME` or `NAME`, with any ending that can be read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ
from letstalk_core.media.audio.decode import load_waveform

from .forced_alignment import align
from .speech import SILENCE, Phoneme, Utterance
from .texts import HELD_OUT_EVERY, SPLITS

logger = logging.getLogger(__name__)
METADATA = "metadata.csv"
ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
PIECE_SECONDS = 10.0
PAUSE_SECONDS = 0.2  # pauses at least this long may be cut


@dataclass(frozen=True)
class Recording:
    """One line of the metadata."""

    name: str
    path: Path
    text: str
    reader: str
    split: str


def read_recordings(folder: str | Path) -> list[Recording]:
    """The recordings of a folder, in the order of its list. Raises: MediaError, ConfigError."""
    folder = Path(folder)
    try:
        lines = (folder / METADATA).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise MediaError(
            f"{folder / METADATA}: cannot be read ({error.strerror}); write a line 'name|text' for each recording"
        ) from None
    except UnicodeDecodeError:
        raise MediaError(f"{folder / METADATA}: is not UTF-8; save it again as UTF-8") from None
    found = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        fields = [f.strip() for f in line.split("|")] + [""] * 5
        name, text, read, reader, split = fields[:5]
        where = f"{folder / METADATA} line {number + 1}"
        if not name or not (read or text):
            raise ConfigError(f"{where}: {line[:40]!r} must be 'name|text'")
        split = split or ("held_out" if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train")
        if split not in SPLITS:
            raise ConfigError(f"{where}: split {split!r} must be one of {SPLITS}")
        path = _sound(folder, name, where)
        found.append(Recording(name, path, read or text, reader or folder.resolve().name, split))
    if not found:
        raise ConfigError(f"{folder / METADATA}: lists no recordings; write a line 'name|text' for each")
    return found


def aligned(recordings: list[Recording]) -> Iterator[tuple[Recording, Utterance]]:
    """Each recording with its phones; one that does not say its text is left out with a warning.

    Raises: MediaError for a sound that cannot be read, DependencyError without pocketsphinx.
    """
    for recording in recordings:
        waveform = load_waveform(recording.path).numpy()
        try:
            yield recording, align(waveform, recording.text, voice=recording.reader)
        except ConfigError as error:
            logger.warning("%s: left out: %s", recording.path, error)


def cut_at_pauses(utterance: Utterance, max_seconds: float = PIECE_SECONDS) -> list[Utterance]:
    """Pieces of at most `max_seconds` where pauses allow it, cut in the middles of pauses."""
    middles = [
        (p.start_s + p.end_s) / 2
        for p in utterance.phonemes
        if p.symbol == SILENCE and p.end_s - p.start_s >= PAUSE_SECONDS
    ]
    cuts, start = [0.0], 0.0
    for here, after in zip(middles, [*middles[1:], utterance.seconds], strict=False):
        if after - start > max_seconds and here > start:
            cuts.append(here)
            start = here
    pieces = [_piece(utterance, a, b) for a, b in zip(cuts, [*cuts[1:], utterance.seconds], strict=True)]
    return [p for p in pieces if any(s.symbol for s in p.phonemes)]


def _piece(utterance: Utterance, start_s: float, end_s: float) -> Utterance:
    first, last = round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)
    wave = utterance.waveform[first:last]
    origin, seconds = first / SAMPLE_RATE_HZ, len(wave) / SAMPLE_RATE_HZ
    spans = [
        Phoneme(p.symbol, max(0.0, p.start_s - origin), min(seconds, p.end_s - origin))
        for p in utterance.phonemes
        if p.end_s > origin and p.start_s < origin + seconds
    ]
    return Utterance(wave, tuple(spans), utterance.voice, utterance.text)


def _sound(folder: Path, name: str, where: str) -> Path:
    """The file of a name. A name is a name: it does not lead out of the folder."""
    if name in (".", "..") or Path(name).name != name:
        raise ConfigError(f"{where}: name {name!r} must be a file name without folders")
    candidates = [base / (name + end) for base in (folder / "wavs", folder) for end in ("", *ENDINGS)]
    for path in candidates:
        if path.is_file():
            return path
    raise MediaError(f"{where}: no sound wavs/{name}.wav; put it there or take out the line")
