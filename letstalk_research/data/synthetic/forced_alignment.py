"""Phone times of recordings whose text is known, by pocketsphinx.

Words are looked up in its dictionary of English; those that it lacks are pronounced by espeak-ng. The dictionary
writes one sign for the vowels of "but" and of "about", whose jaws differ: espeak-ng tells them apart.
Source: pocketsphinx (PyPI, BSD licence, acoustic model inside), Decoder.set_align_text and set_alignment.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from letstalk_core.errors import ConfigError, DependencyError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ

from .phone_sets import ARPABET, CLOSURE_SECONDS, labelled_utterance
from .speech import Utterance, synthesise

Phone = tuple[str, float, float]  # IPA, start and end in seconds
FRAME_SECONDS = 0.01
QUIET_SECONDS = 0.12  # closures of stops are shorter
QUIET_LEVELS = (0.03, 0.06)  # of the loud parts' level, in still rooms and in noise
ABOVE_NOISE = 1.6
SHORTEST_SECONDS = 0.02
SEARCH = {"bestpath": False, "silprob": 0.1, "beam": 1e-60, "pbeam": 1e-60, "wbeam": 1e-45}  # the words are known
STOPS = frozenset("pbtdkɡ")
OFFSET_SECONDS = 0.008  # windows of 25.6 ms start with their frame, so a change shows up early
SHORT_SECONDS = 0.06  # the vowel of "but" is never this short
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
FILLERS = ("<", "[", "+")
DIPHTHONGS = {"aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "əʊ": "OW", "ɔɪ": "OY", "tʃ": "CH", "dʒ": "JH"}
NOT_CMU = ("axr", "dx", "ax", "ix", "hv", "el", "em", "en")  # names that its dictionary does not use
SIGNS = {
    **{ipa: name.upper() for name, ipa in ARPABET.items() if len(ipa) == 1 and name not in NOT_CMU},
    **dict.fromkeys("əɐ", "AH"), **dict.fromkeys("ᵻɨʏ", "IH"), **dict.fromkeys("ɝɜ", "ER"), "a": "AA", "ɒ": "AA",
    "e": "EH", "o": "OW", "y": "UW", "ø": "UH", "œ": "EH", "ɾ": "D", "ɫ": "L", "r": "R", "x": "K", "ç": "HH",
    "g": "G", "ɲ": "N", "ʎ": "L", "β": "V", "ɣ": "G",
}  # fmt: skip
SCHWAS = frozenset("əɐᵻ")
VOWELS = frozenset("aɑɐæɒʌɛeiɪᵻɨəɜɚɝɔoʊuyøœ")


def align(waveform: NDArray[np.float32], text: str, *, voice: str = "") -> Utterance:
    """The recording as an utterance with its phones. Shapes: waveform (s,) at 16 kHz, -1..1.

    Raises: DependencyError without pocketsphinx, or without espeak-ng for words out of its dictionary;
    ConfigError for a text without words or one that is not what the recording says.
    """
    decoder = _decoder()
    words = [w.replace("’", "'") for w in WORD.findall(text.lower())]
    if not words:
        raise ConfigError(f"text={text[:40]!r} has no words to find in the recording")
    for word in words:
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, " ".join(_pronounced(word)), True)
    sound = (np.clip(waveform, -1, 1) * 32767).astype(np.int16).tobytes()
    try:
        decoder.set_align_text(" ".join(words))
        _decode(decoder, sound)
        if decoder.hyp() is None:
            raise RuntimeError("no path")
        decoder.set_alignment()  # from words to phones
        _decode(decoder, sound)
        phones = _phones(decoder.get_alignment())
    except RuntimeError:
        raise ConfigError(f"the recording does not say its text {text[:60]!r}; correct one of them") from None
    return labelled_utterance(waveform, with_pauses(waveform, phones), voice=voice, text=text)


def with_pauses(waveform: NDArray[np.float32], phones: list[Phone]) -> list[Phone]:
    """Phones (IPA, start, end) with the pauses that the aligner stretched a sound over.

    Where the sound is 30 dB below speech (24 dB in a noisy room) for `QUIET_SECONDS` and at most two phones share
    the stretch, it becomes a pause. Recordings whose noise is louder than that stay as they are.
    """
    hop = round(FRAME_SECONDS * SAMPLE_RATE_HZ)
    if len(waveform) < 2 * hop:
        return phones
    power = np.square(waveform[: len(waveform) // hop * hop], dtype=np.float64).reshape(-1, hop).mean(1)
    rms = np.sqrt(np.convolve(power, [0.25, 0.5, 0.25], "same"))
    loud, noise = np.percentile(rms, (90, 5))
    limit = np.clip(ABOVE_NOISE * noise, QUIET_LEVELS[0] * loud, QUIET_LEVELS[1] * loud)
    quiet = np.concatenate([[False], rms < limit, [False]])
    edges = np.flatnonzero(quiet[1:] != quiet[:-1]) * FRAME_SECONDS
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= QUIET_SECONDS:
            phones = _paused(phones, float(start), float(end))
    return phones


def _paused(phones: list[Phone], start: float, end: float) -> list[Phone]:
    """Phones with a pause from start to end, unless that would leave one of them without sound."""
    first = next((i for i, p in enumerate(phones) if p[2] > start + 1e-9), len(phones))
    last = next((i for i in range(len(phones) - 1, -1, -1) if phones[i][1] < end - 1e-9), -1)
    if not first <= last <= first + 1 or any(not p[0] for p in phones[first : last + 1]):
        return phones
    before, after = phones[:first], phones[last + 1 :]
    (symbol, begin, _), (symbol_after, _, finish) = phones[first], phones[last]
    if first == last:  # the louder, longer side keeps the name, the other is the neighbour's rest
        if start - begin >= finish - end:
            symbol_after = after[0][0] if after else ""
            after = after[1:]
            finish = phones[last + 1][2] if last + 1 < len(phones) else finish
        else:
            symbol = before[-1][0] if before else ""
            begin = before[-1][1] if before else begin
            before = before[:-1]
    if symbol_after[:1] in STOPS:
        end = max(start, end - CLOSURE_SECONDS)
    if start - begin < SHORTEST_SECONDS or finish - end < SHORTEST_SECONDS or end - start < SHORTEST_SECONDS:
        return phones
    return [*before, (symbol, begin, start), ("", start, end), (symbol_after, end, finish), *after]


def _decode(decoder: Any, sound: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(sound, no_search=False, full_utt=True)
    decoder.end_utt()


@functools.cache
def _decoder() -> Any:
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise DependencyError("recordings are aligned by pocketsphinx; 'pip install pocketsphinx'") from None
    # means over the whole recording: what was aligned before does not matter
    return Decoder(lm=None, loglevel="FATAL", cmn="batch", samprate=float(SAMPLE_RATE_HZ), **SEARCH)


def _phones(alignment: Any) -> list[Phone]:
    phones: list[Phone] = []
    for word in alignment:
        if word.name.startswith(FILLERS):
            phones.append(("", _seconds(word.start), _seconds(word.start + word.duration)))
            continue
        names = [p.name.lower() for p in word]
        symbols = _with_schwas(re.sub(r"\(\d+\)$", "", word.name), names)
        for phone, symbol in zip(word, symbols, strict=True):
            if symbol == "ʌ" and phone.duration * FRAME_SECONDS < SHORT_SECONDS:
                symbol = "ə"
            phones.append((symbol, _seconds(phone.start), _seconds(phone.start + phone.duration)))
    return phones


def _seconds(frame: int) -> float:
    return frame * FRAME_SECONDS + OFFSET_SECONDS if frame else 0.0


def _with_schwas(word: str, names: list[str]) -> list[str]:
    """IPA of ARPAbet names; "ah" is a schwa where espeak-ng has one at the same vowel of the word."""
    symbols = [ARPABET.get(name, "") for name in names]
    if "ʌ" not in symbols:
        return symbols
    spoken = [s for s in _ipa(word) if s[0] in VOWELS]
    places = [i for i, s in enumerate(symbols) if s and s[0] in VOWELS]
    if len(spoken) == len(places):
        for i, there in zip(places, spoken, strict=True):
            if symbols[i] == "ʌ" and there[0] in SCHWAS:
                symbols[i] = "ə"
    return symbols


@functools.cache
def _ipa(word: str) -> tuple[str, ...]:
    """espeak-ng's phonemes of a word; none without espeak-ng or for what it does not pronounce."""
    try:
        return tuple(p.symbol for p in synthesise(word, "en-us").phonemes if p.symbol)
    except (ConfigError, DependencyError):
        return ()


def _pronounced(word: str) -> list[str]:
    """ARPAbet of a word that the dictionary lacks. Raises: DependencyError, ConfigError."""
    names: list[str] = []
    for p in synthesise(word, "en-us").phonemes:
        symbol = p.symbol.replace("ː", "")
        if symbol in DIPHTHONGS:
            names.append(DIPHTHONGS[symbol])
        else:
            names += [SIGNS[sign] for sign in symbol if sign in SIGNS]
    if not names:
        raise ConfigError(f"word {word!r} has no pronunciation; write it as it is said")
    return names
