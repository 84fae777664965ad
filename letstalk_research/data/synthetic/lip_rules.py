"""Lips of photographs: rules for faces that move as filmed ones do, beside `visemes`, the rules of drawn faces.

`GAPS` says how far apart the lips of people are in each sound, which is not how far the jaw is down: rounded
lips leave a small gap however low the jaw is, and spread ones a wide one. Order within the table:
- vowels open and get narrower as the tongue falls, and close with rounding (Fromkin 1964, Language and Speech 7;
  Montgomery and Jackson 1983, JASA 73);
- consonants: lips are the closer the more they stand out, /w ʃ r/ before the others (Westbury, Severson and
  Hashi 1999, ICPhS 14, 52 speakers); the jaw is highest in sibilants, then in /t d n/, and lower in /l/ and /k g/
  (Keating 1983; Lee, Beckman and Jackson 1994, ASA 127; Mooshammer, Hoole and Geumann 2007, Lang. Speech 50);
- `hold` is how much a sound insists on its own mouth: sounds blend by it as dominance functions do (Cohen and
  Massaro 1993), and lips open with the loudness of the voice (Grant and Seitz 2000, JASA 108).
Sizes within that order are set by hand, with an eye on 62 films of one speaker of the GRID corpus, as are times
and factors; how well they do on other sentences and speakers is in docs/demo-model.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from letstalk_core.errors import ConfigError

from .speech import SILENCE, Utterance
from .visemes import BILABIAL, LABIODENTAL, RATE_HZ, contacts, loudness, rests, smoothed, spans_of

Mouth = tuple[float, float, float, float, float]

# gap between the lips, 1 in a loud "a"; wide, round, teeth as in `visemes`; hold
GAPS: dict[str, Mouth] = {
    "a": (1.00, 0.00, 0.20, 0.15, 1.0), "ɑ": (1.00, 0.00, 0.20, 0.05, 1.0), "ɐ": (0.75, 0.05, 0.10, 0.10, 0.8),
    "æ": (0.95, 0.20, 0.00, 0.30, 1.0), "ɒ": (0.60, 0.00, 0.40, 0.00, 1.0), "ʌ": (0.70, 0.05, 0.10, 0.10, 0.8),
    "ɛ": (0.85, 0.25, 0.00, 0.35, 1.0), "e": (0.75, 0.50, 0.00, 0.40, 1.0), "i": (0.50, 0.95, 0.00, 0.55, 1.0),
    "ɪ": (0.48, 0.65, 0.00, 0.40, 0.7), "ᵻ": (0.40, 0.50, 0.00, 0.35, 0.5), "ɨ": (0.40, 0.50, 0.00, 0.35, 0.5),
    "ɯ": (0.40, 0.50, 0.00, 0.35, 0.6),
    "ə": (0.40, 0.15, 0.00, 0.15, 0.4), "ɘ": (0.40, 0.15, 0.00, 0.15, 0.4), "ɜ": (0.40, 0.10, 0.20, 0.15, 0.7),
    "ɚ": (0.35, 0.00, 0.35, 0.10, 0.7), "ɝ": (0.35, 0.00, 0.35, 0.10, 0.7), "ɵ": (0.25, 0.00, 0.65, 0.00, 0.8),
    "ɔ": (0.40, 0.00, 0.70, 0.00, 1.0), "o": (0.25, 0.00, 0.80, 0.00, 1.0), "ʊ": (0.25, 0.00, 0.60, 0.00, 0.8),
    "u": (0.10, 0.00, 0.90, 0.00, 1.0), "ʉ": (0.10, 0.00, 0.85, 0.00, 1.0), "y": (0.10, 0.00, 0.90, 0.00, 1.0),
    "ʏ": (0.15, 0.00, 0.80, 0.00, 1.0), "ø": (0.25, 0.00, 0.80, 0.00, 1.0), "œ": (0.35, 0.00, 0.70, 0.00, 1.0),
    "ɤ": (0.50, 0.15, 0.00, 0.15, 0.8),
    **dict.fromkeys("mbp", (0.00, 0.30, 0.00, 0.00, 1.5)), "β": (0.02, 0.30, 0.00, 0.00, 1.5),
    "ɸ": (0.05, 0.10, 0.10, 0.00, 1.5), **dict.fromkeys("fvʋɱ", (0.03, 0.40, 0.00, 0.80, 1.5)),
    **dict.fromkeys("wʍɥ", (0.03, 0.00, 1.00, 0.00, 1.5)),
    **dict.fromkeys("rɾɹɻʁʀ", (0.10, 0.00, 0.35, 0.20, 1.0)),
    **dict.fromkeys("ʃʒɕʑʂʐ", (0.22, 0.00, 0.55, 0.60, 1.0)), **dict.fromkeys("sz", (0.25, 0.80, 0.00, 0.60, 1.0)),
    **dict.fromkeys("θð", (0.28, 0.30, 0.00, 0.50, 0.8)), **dict.fromkeys("tdʈɖnɳ", (0.30, 0.40, 0.00, 0.45, 0.7)),
    **dict.fromkeys("lɫɭʎ", (0.45, 0.30, 0.00, 0.30, 0.5)), "j": (0.45, 0.80, 0.00, 0.45, 0.5),
    **dict.fromkeys("kɡgqxɣχçcɟʝŋɲ", (0.50, 0.15, 0.00, 0.25, 0.3)),
    **dict.fromkeys("hɦʔ", (0.40, 0.15, 0.00, 0.10, 0.2)),
}  # fmt: skip
NEUTRAL: Mouth = (0.40, 0.10, 0.00, 0.20, 0.5)  # a sign that the table does not know
REST: Mouth = (0.0, 0.0, 0.0, 0.0, 0.6)
GAP_SECONDS, SHAPE_SECONDS = 0.045, 0.055  # how far sounds blend: their gap and teeth, their width
STRESS, STRESS_SECONDS = 0.5, 0.04  # share of the gap that follows loudness
# From gaps to a puppet's jaw: the first tenth of a gap shows no teeth, and the puppet's lips part by themselves
# where they round or bare the teeth.
JAW, HIDDEN, BY_ROUND, BY_TEETH = 1.39, 0.11, 0.40, 0.20
PARTED, BITTEN = 0.06, 0.08  # jaw at least in sounds that do not close the lips; of lips on teeth
BITTEN_TEETH = 0.8


def lip_curves(utterance: Utterance, fps: float, frames: int) -> NDArray[np.float32]:
    """Lips at the centre of each frame, (i + 0.5) / fps seconds; frames past the sound are at rest.

    Shapes: (frames, 4), columns as `networks.motion_channels.LIPS`, all in 0..1. Raises: ConfigError.
    """
    if fps <= 0 or frames < 0:
        raise ConfigError(f"fps={fps} must be > 0 and frames={frames} >= 0")
    seconds = max(frames / fps, utterance.seconds) + 0.1
    times = np.arange(int(np.ceil(seconds * RATE_HZ))) / RATE_HZ
    spans = spans_of(utterance.phonemes)
    if not spans:
        return np.zeros((frames, 4), np.float32)
    known = [REST if s.sign == SILENCE else GAPS.get(s.sign, NEUTRAL) for s in spans]
    index = np.searchsorted([s.start_s for s in spans], times, "right") - 1
    index = np.where(times < spans[-1].end_s, index.clip(0), len(spans))
    gap, wide, rounded, teeth = _blended(np.array([*known, REST], np.float32)[index]).T

    loud = smoothed(np.sqrt(loudness(utterance.waveform, times))[:, None], STRESS_SECONDS)[:, 0]
    gap = gap * (1 - STRESS + 1.15 * STRESS * loud)
    jaw = np.maximum(JAW * gap - HIDDEN - BY_ROUND * rounded - BY_TEETH * teeth, PARTED)
    closed = contacts(times, spans, BILABIAL)
    bitten = contacts(times, spans, LABIODENTAL) * (1 - closed)
    jaw = (jaw + (BITTEN - jaw) * bitten) * (1 - closed)
    teeth = np.maximum(teeth, BITTEN_TEETH * bitten) * (1 - closed)
    rounded = rounded * (1 - 0.6 * bitten)
    rest = rests(times, spans, utterance.seconds)
    curves = np.stack([jaw, wide, rounded, teeth]) * (1 - rest)
    centres = (np.arange(frames) + 0.5) / fps
    sampled = np.stack([np.interp(centres, times, c) for c in curves], axis=1)
    return np.clip(sampled, 0.0, 1.0).astype(np.float32)


def _blended(mouths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mouths (n, 5) over time as they run into each other, each by its hold: (n, 4)."""
    hold = mouths[:, 4:]
    held = mouths[:, :4] * hold
    gap_teeth = smoothed(held[:, (0, 3)], GAP_SECONDS) / smoothed(hold, GAP_SECONDS)
    shape = smoothed(held[:, (1, 2)], SHAPE_SECONDS) / smoothed(hold, SHAPE_SECONDS)
    return np.stack([gap_teeth[:, 0], *shape.T, gap_teeth[:, 1]], axis=1)
