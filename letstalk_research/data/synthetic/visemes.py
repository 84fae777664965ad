"""From phonemes to mouth shapes: how far jaw, lips and teeth move for each sound, and how sounds blend.

Each IPA sign has a target (jaw, wide, round, teeth). Targets become curves at 400 Hz, which are smoothed (lips and
jaw need about a tenth of a second), and only then are closures put in: smoothing alone leaves /m b p/ half open,
and a closed mouth is what viewers check first. Pauses of 0.2 s and more close the mouth.
Source: docs/demo-model.md, Drawn faces (targets set by eye on rendered faces).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ

from .speech import SILENCE, Phoneme, Utterance

CURVES = ("jaw", "wide", "round", "teeth", "voiced", "energy")
RATE_HZ = 400
SIGMA_SECONDS = 0.032  # coarticulation
PAUSE_SECONDS = 0.2  # pauses at least this long close the mouth
RELAX_SECONDS = 0.06  # time that the mouth takes to close into a pause and to open out of it
BURST_SECONDS = 0.048  # espeak-ng names /p t k/ at the burst: their closure is the silence before it
CLOSED_SECONDS = 0.046  # shortest full closure: longer than a frame at 25 fps, so that one frame always shows it
GAINS = (1.3, 1.2, 1.25, 1.1)  # what smoothing takes away from peaks of usual length, per lip column

Target = tuple[float, float, float, float]

VOWELS: dict[str, Target] = {
    "a": (1.00, 0.30, 0.00, 0.15), "ɑ": (1.00, 0.10, 0.05, 0.05), "ɐ": (0.85, 0.20, 0.00, 0.10),
    "æ": (0.90, 0.55, 0.00, 0.30), "ɒ": (0.90, 0.00, 0.40, 0.00), "ʌ": (0.78, 0.20, 0.00, 0.10),
    "ɛ": (0.66, 0.60, 0.00, 0.35), "e": (0.50, 0.75, 0.00, 0.45), "i": (0.26, 1.00, 0.00, 0.75),
    "ɪ": (0.34, 0.75, 0.00, 0.55), "ᵻ": (0.32, 0.65, 0.00, 0.50), "ɨ": (0.30, 0.60, 0.00, 0.50),
    "ɯ": (0.28, 0.55, 0.00, 0.40),
    "ə": (0.42, 0.20, 0.05, 0.15), "ɜ": (0.48, 0.15, 0.25, 0.15), "ɚ": (0.44, 0.05, 0.45, 0.10),
    "ɝ": (0.44, 0.05, 0.45, 0.10), "ɘ": (0.42, 0.25, 0.05, 0.20), "ɵ": (0.40, 0.00, 0.70, 0.00),
    "ɔ": (0.76, 0.00, 0.70, 0.00), "o": (0.56, 0.00, 0.95, 0.00), "ʊ": (0.32, 0.00, 0.85, 0.00),
    "u": (0.24, 0.00, 1.00, 0.00), "ʉ": (0.24, 0.00, 0.95, 0.00), "y": (0.22, 0.00, 1.00, 0.00),
    "ʏ": (0.30, 0.00, 0.90, 0.00), "ø": (0.46, 0.00, 0.90, 0.00), "œ": (0.62, 0.00, 0.75, 0.00),
    "ɤ": (0.50, 0.30, 0.10, 0.20),
}  # fmt: skip
CONSONANTS: dict[str, Target] = {
    **dict.fromkeys("mbp", (0.00, 0.15, 0.05, 0.00)), "β": (0.06, 0.15, 0.05, 0.00), "ɸ": (0.08, 0.10, 0.20, 0.00),
    **dict.fromkeys("fvʋɱ", (0.10, 0.30, 0.00, 1.00)), **dict.fromkeys("θð", (0.24, 0.35, 0.00, 0.80)),
    **dict.fromkeys("sz", (0.12, 0.65, 0.00, 1.00)), **dict.fromkeys("ʃʒɕʑʂʐ", (0.18, 0.00, 0.75, 0.85)),
    **dict.fromkeys("tdʈɖ", (0.20, 0.40, 0.00, 0.65)), **dict.fromkeys("nɳ", (0.24, 0.35, 0.00, 0.50)),
    **dict.fromkeys("lɫɭʎ", (0.32, 0.35, 0.00, 0.40)), **dict.fromkeys("rɾɹɻʁʀ", (0.28, 0.10, 0.35, 0.30)),
    **dict.fromkeys("kɡgqxɣχçcɟʝ", (0.34, 0.25, 0.00, 0.30)), **dict.fromkeys("ŋɲ", (0.30, 0.35, 0.00, 0.35)),
    **dict.fromkeys("wʍɥ", (0.16, 0.00, 1.00, 0.00)), "j": (0.24, 0.85, 0.00, 0.60),
    **dict.fromkeys("hɦʔ", (0.40, 0.20, 0.00, 0.15)),
}  # fmt: skip
BILABIAL, LABIODENTAL, BURSTS = frozenset("mbpβ"), frozenset("fvʋɱ"), frozenset("ptkqʈc")
VOICELESS = frozenset("ptkqʈcfθsʃɕʂxχçhʔʍɸ")
NEUTRAL: Target = (0.35, 0.25, 0.10, 0.20)  # a sign that the tables do not know
FREE_JAW = frozenset("hɦʔkɡgqxɣχlɫrɾɹʁʀŋ")  # made inside the mouth: the jaw is the neighbouring vowel's


@dataclass(frozen=True)
class Span:
    start_s: float
    end_s: float
    target: Target
    sign: str  # the IPA sign that gave the target; SILENCE in pauses


def viseme_targets(symbol: str) -> list[tuple[str, Target]]:
    """Signs of a phoneme symbol with their (jaw, wide, round, teeth), all in 0..1; empty for a pause.

    Diphthongs have two entries; an affricate has its fricative, which is what the lips show (after a closure for
    /pf/). Length, nasality and other marks are ignored.
    """
    found = [(c, VOWELS.get(c) or CONSONANTS.get(c)) for c in symbol]
    known = [(c, t) for c, t in found if t is not None]
    if not known:
        return [(symbol[0], NEUTRAL)] if symbol else []
    if len(known) > 1 and known[0][0] in "td" and known[1][0] in "ʃʒɕʑʂʐsz":
        known = known[1:]
    return known


def spans_of(phonemes: tuple[Phoneme, ...]) -> list[Span]:
    """One span a sign, with bursts moved back over their closures."""
    starts = [p.start_s for p in phonemes]
    for i, p in enumerate(phonemes):
        if i and p.symbol[:1] in BURSTS:  # never more than 60 % of the sound before
            before = phonemes[i - 1]
            starts[i] = max(p.start_s - BURST_SECONDS, p.start_s - 0.6 * (before.end_s - before.start_s))
    spans: list[Span] = []
    for i, p in enumerate(phonemes):
        start, end = starts[i], starts[i + 1] if i + 1 < len(phonemes) else p.end_s
        entries = viseme_targets(p.symbol) or [(SILENCE, (0.0, 0.0, 0.0, 0.0))]
        edges = np.linspace(start, end, len(entries) + 1)
        spans += [
            Span(float(a), float(b), t, c) for (c, t), a, b in zip(entries, edges[:-1], edges[1:], strict=True)
        ]
    return spans


def _coarticulated(spans: list[Span]) -> NDArray[np.float32]:
    """Targets (n, 4) in which consonants take over lip shape, and some the jaw, of the vowel that follows."""
    targets = np.array([s.target for s in spans], np.float32).reshape(-1, 4)
    following: Target | None = None
    for i in range(len(spans) - 1, -1, -1):
        sign = spans[i].sign
        if sign in VOWELS:
            following = spans[i].target
        elif sign == SILENCE:
            following = None
        elif following is not None:
            targets[i, 2] = max(targets[i, 2], 0.75 * following[2])  # lips round early: "s" of "soup"
            targets[i, 1] += 0.5 * (following[1] - targets[i, 1])
            if sign in FREE_JAW:
                targets[i, 0] += 0.5 * (0.8 * following[0] - targets[i, 0])
    return targets


def smoothed(curves: NDArray[np.float32], sigma_s: float) -> NDArray[np.float32]:
    """Gaussian smoothing along time (n, c), edges repeated."""
    radius = int(np.ceil(3.5 * sigma_s * RATE_HZ))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma_s * RATE_HZ)) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(curves, ((radius, radius), (0, 0)), mode="edge")
    columns = [np.convolve(c, kernel, "valid") for c in padded.T]
    return np.stack(columns, axis=1).astype(np.float32)


def _plateau(times: NDArray[np.float64], start: float, end: float, ramp: float) -> NDArray[np.float32]:
    """1 in start..end, falling to 0 over `ramp` seconds outside, with a smooth shoulder."""
    distance = np.maximum(np.maximum(start - times, times - end), 0.0) / ramp
    x = np.clip(1.0 - distance, 0.0, 1.0)
    return (x * x * (3.0 - 2.0 * x)).astype(np.float32)


def contacts(times: NDArray[np.float64], spans: list[Span], signs: frozenset[str]) -> NDArray[np.float32]:
    """How far (0..1) the lips are in contact for the given sounds."""
    contact = np.zeros(len(times), np.float32)
    for s in spans:
        if s.sign in signs:
            end = max(s.end_s - (0.02 if s.sign in BURSTS else 0.012), s.start_s + CLOSED_SECONDS)
            first, last = np.searchsorted(times, (s.start_s - 0.1, end + 0.1))
            window = _plateau(times[first:last], s.start_s, end, ramp=0.032)
            contact[first:last] = np.maximum(contact[first:last], window)
    return contact


def rests(times: NDArray[np.float64], spans: list[Span], end_s: float) -> NDArray[np.float32]:
    """1 where the mouth rests closed: in long pauses, and after the end of the sound."""
    rest = np.zeros(len(times), np.float32)
    spoken = [s for s in spans if s.sign != SILENCE]
    edges = [-10.0, *(e for s in spoken for e in (s.start_s, s.end_s)), max(end_s, float(times[-1])) + 10.0]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= PAUSE_SECONDS:
            rest = np.maximum(
                rest, _plateau(times, start + RELAX_SECONDS, end - RELAX_SECONDS, ramp=RELAX_SECONDS)
            )
    return rest


def loudness(waveform: NDArray[np.float32], times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Loudness 0..1 at given seconds: RMS over 60 ms, 1 at the 90th percentile of the parts with sound."""
    if not len(waveform):
        return np.zeros(len(times), np.float32)
    hop = SAMPLE_RATE_HZ // RATE_HZ
    power = np.add.reduceat(waveform.astype(np.float64) ** 2, np.arange(0, len(waveform), hop)) / hop
    rms = np.sqrt(smoothed(power[:, None].astype(np.float32), 0.018)[:, 0] + 1e-12)
    spoken = rms[rms > 0.05 * rms.max()]
    level = float(np.percentile(spoken, 90)) if len(spoken) and rms.max() > 1e-5 else 1.0
    centres = (np.arange(len(rms)) + 0.5) * hop / SAMPLE_RATE_HZ
    return np.clip(np.interp(times, centres, rms, left=0.0, right=0.0) / level, 0.0, 1.0).astype(np.float32)


def viseme_curves(utterance: Utterance, fps: float, frames: int) -> NDArray[np.float32]:
    """Mouth shape at the centre of each frame, (i + 0.5) / fps seconds; frames past the sound are at rest.

    Shapes: (frames, 6): jaw, wide, round, teeth, voiced, energy, all in 0..1. Raises: ConfigError.
    """
    if fps <= 0 or frames < 0:
        raise ConfigError(f"fps={fps} must be > 0 and frames={frames} >= 0")
    seconds = max(frames / fps, utterance.seconds) + 0.1
    times = np.arange(int(np.ceil(seconds * RATE_HZ))) / RATE_HZ
    spans = spans_of(utterance.phonemes)
    curves = np.zeros((len(times), 6), np.float32)
    if spans:
        index = np.clip(np.searchsorted([s.start_s for s in spans], times, "right") - 1, 0, None)
        sounding = (times < spans[-1].end_s)[:, None]
        voiced = np.array([s.sign != SILENCE and s.sign not in VOICELESS for s in spans], np.float32)
        curves[:, :4] = _coarticulated(spans)[index] * sounding
        curves[:, 4] = voiced[index] * sounding[:, 0]
    energy = loudness(utterance.waveform, times)
    curves = smoothed(curves, SIGMA_SECONDS)
    curves[:, :4] = np.clip(curves[:, :4] * np.array(GAINS, np.float32), 0.0, 1.0)
    # The envelope is slow: jaws follow stress, not the dips of single consonants.
    curves[:, 0] = np.minimum(curves[:, 0] * (0.66 + 0.40 * smoothed(energy[:, None], 0.06)[:, 0]), 1.0)
    rest, closed = rests(times, spans, utterance.seconds), contacts(times, spans, BILABIAL)
    teeth = contacts(times, spans, LABIODENTAL) * (1 - closed)
    curves[:, 0] = curves[:, 0] * (1 - teeth) + 0.12 * teeth
    curves[:, 3] = np.maximum(curves[:, 3], teeth)
    curves[:, 2] *= 1 - 0.6 * teeth
    curves[:, (0, 3)] *= (1 - closed)[:, None]
    curves[:, :5] *= (1 - rest)[:, None]
    curves[:, 5] = energy
    centres = (np.arange(frames) + 0.5) / fps
    sampled = np.stack([np.interp(centres, times, c) for c in curves.T], axis=1)
    return np.clip(sampled, 0.0, 1.0).astype(np.float32)
