"""Phone names of synthesisers and aligners, as IPA with the times that the lips need.

Sources: the CMU pronouncing dictionary's ARPAbet (pocketsphinx, flite, festival's US voices), festival's Italian
phone set; espeak-ng, whose habit for stops is the one that `visemes` expects.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ

from .speech import SILENCE, Phoneme, Utterance, append_phoneme

ARPABET = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "eh": "ɛ",
    "er": "ɚ", "ey": "eɪ", "ih": "ɪ", "ix": "ᵻ", "iy": "i", "ow": "oʊ", "oy": "ɔɪ", "uh": "ʊ", "uw": "u",
    "b": "b", "ch": "tʃ", "d": "d", "dh": "ð", "dx": "ɾ", "el": "l", "em": "m", "en": "n", "f": "f", "g": "ɡ",
    "hh": "h", "hv": "ɦ", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n", "ng": "ŋ", "p": "p", "r": "ɹ",
    "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ",
    "pau": SILENCE, "sil": SILENCE, "brth": SILENCE, "h#": SILENCE,
}  # fmt: skip
ITALIAN = {
    **{v + accent: ipa for v, ipa in zip("ieEaoOu", "ieɛaoɔu", strict=True) for accent in ("", "1")},
    **{c: c for c in "jwptkbdfszvmnlr"},
    "g": "ɡ", "S": "ʃ", "Z": "ʒ", "ts": "ts", "tS": "tʃ", "dz": "dz", "dZ": "dʒ", "J": "ɲ", "ng": "ŋ", "nf": "ɱ",
    "L": "ʎ", "#": SILENCE,
}  # fmt: skip
CLOSURE_SECONDS = 0.048  # espeak-ng's closures before the burst; `visemes` moves them back by as much
VOICELESS_STOPS = frozenset("ptk")
GAP_SECONDS = 1e-3  # smaller gaps and overlaps of labels are rounding


def labelled_utterance(
    waveform: NDArray[np.float32], phones: Iterable[tuple[str, float, float]], *, voice: str, text: str
) -> Utterance:
    """An utterance from (IPA or SILENCE, start, end) of each phone in seconds; gaps between phones are pauses.

    Labels of corpora count the closure of /p t k/ as part of the sound. espeak-ng's start at the burst, so the
    closure is handed to the sound before, and curves of both kinds of speech mean the same.
    Shapes: waveform (s,) at 16 kHz. Raises: ConfigError for phones out of order or without any sound.
    """
    seconds = len(waveform) / SAMPLE_RATE_HZ
    found: list[Phoneme] = []

    def append(symbol: str, end: float, *, go_on: bool = False) -> None:
        append_phoneme(found, symbol, found[-1].end_s if found else 0.0, end, go_on=go_on)

    for symbol, start, end in phones:
        here = found[-1].end_s if found else 0.0
        start, end = min(start, seconds), min(end, seconds)
        if start < here - GAP_SECONDS:
            raise ConfigError(f"phone {symbol!r} at {start:.3f} s starts before the one in front of it ends")
        if start > here + GAP_SECONDS:
            append(SILENCE, start)
            here = start
        if symbol[:1] in VOICELESS_STOPS and end > here:
            closed = here + max(0.0, min(CLOSURE_SECONDS, end - here - 0.01))
            append(found[-1].symbol if found else SILENCE, closed, go_on=True)
        append(symbol, end)
    append(SILENCE, seconds)
    if not any(p.symbol for p in found):
        raise ConfigError(f"no sound was found in the speech of {voice}: {text[:40]!r}")
    return Utterance(waveform, tuple(found), voice, text)
