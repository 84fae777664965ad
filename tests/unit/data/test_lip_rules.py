"""Lips of photographs from made-up phonemes: what phonetics says of gaps and shapes, closures, rest, bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_core.networks.motion_channels import LIPS
from letstalk_research.data.synthetic.lip_rules import GAPS, lip_curves
from letstalk_research.data.synthetic.speech import Utterance
from letstalk_research.data.synthetic.visemes import CONSONANTS, VOWELS

from .test_visemes import spoken

JAW, WIDE, ROUND, TEETH = range(4)
SHUT = 0.03


def at(utterance: Utterance, seconds: float) -> np.ndarray:
    fps = 200.0
    return lip_curves(utterance, fps, round(utterance.seconds * fps) + 10)[int(seconds * fps)]


def middle(sound: str, around: str = "ə") -> np.ndarray:
    """Lips in the middle of a sound between two others."""
    return at(spoken((around, 0.1), (sound, 0.16), (around, 0.1)), 0.18)


def test_every_sign_that_drawn_faces_know_has_a_mouth() -> None:
    assert GAPS.keys() == VOWELS.keys() | CONSONANTS.keys()
    assert all(0 <= v <= 1 for mouth in GAPS.values() for v in mouth[:4])
    assert all(mouth[4] > 0 for mouth in GAPS.values())


@pytest.mark.parametrize("wider", ["aɛe", "aʌə", "aɔou", "ɑɒɔ", "ɛɪɹ", "ktsʃw", "lnz", "iu"])
def test_gaps_are_in_the_order_that_phonetics_gives(wider: str) -> None:
    gaps = [GAPS[sign][0] for sign in wider]
    assert gaps == sorted(gaps, reverse=True) and len(set(gaps)) == len(gaps)


@pytest.mark.parametrize(("open_", "closed"), [("ɛ", "ɔ"), ("a", "i"), ("i", "u"), ("k", "s")])
def test_what_opens_more_in_the_table_opens_more_in_speech(open_: str, closed: str) -> None:
    assert middle(open_)[JAW] > middle(closed)[JAW] + 0.05


@pytest.mark.parametrize("sound", ["m", "b"])
@pytest.mark.parametrize("offset", [0.0, 0.01, 0.02, 0.03])
def test_a_bilabial_meets_in_some_frame_and_nothing_else_in_speech_does(sound: str, offset: float) -> None:
    utterance = spoken(("", 0.3 + offset), ("a", 0.16), (sound, 0.07), ("a", 0.16), ("", 0.3))
    curves = lip_curves(utterance, 25, 26)
    inside = curves[round((0.46 + offset) * 25) - 2 : round((0.53 + offset) * 25) + 2, JAW]
    assert inside.min() < SHUT
    spoken_on = lip_curves(spoken(("a", 0.1), ("s", 0.1), ("u", 0.1), ("t", 0.1), ("f", 0.1), ("w", 0.1)), 25, 14)
    assert spoken_on[2:, JAW].min() >= SHUT


def test_lips_on_teeth_show_them() -> None:
    mouth = middle("f", "a")
    assert mouth[TEETH] > 0.75 and 0.05 < mouth[JAW] < 0.2


def test_sounds_that_do_not_insist_take_their_neighbours_mouth() -> None:
    def change(sound: str) -> float:
        return float(middle(sound, "a")[JAW] - middle(sound, "u")[JAW])

    assert change("k") > 1.3 * change("s")


def test_rounded_lips_round_and_spread_ones_spread() -> None:
    rounded, spread = middle("u"), middle("i")
    assert rounded[ROUND] > 0.6 and rounded[WIDE] < 0.1
    assert spread[WIDE] > 0.4 and spread[ROUND] < 0.05


def test_softer_syllables_open_less_and_loudness_of_the_whole_does_not_count() -> None:
    utterance = spoken(("ʌ", 0.4), ("", 0.25), ("ʌ", 0.4))
    wave = utterance.waveform.copy()
    wave[: len(wave) // 2] *= 0.2
    mouth = Utterance(wave, utterance.phonemes)
    assert at(mouth, 0.2)[JAW] < at(mouth, 0.85)[JAW] - 0.15
    np.testing.assert_allclose(at(utterance.scaled(0.1), 0.2), at(utterance, 0.2), atol=0.02)


def test_pauses_and_frames_past_the_sound_are_at_rest() -> None:
    assert at(spoken(("a", 0.3), ("", 0.3), ("a", 0.3)), 0.45).max() < 1e-3
    assert lip_curves(spoken(("a", 0.4)), 25, 40)[14:].max() < 1e-3
    assert np.array_equal(lip_curves(Utterance(np.zeros(0, np.float32), ()), 25, 3), np.zeros((3, len(LIPS))))
    with pytest.raises(ConfigError, match="fps=0"):
        lip_curves(spoken(("a", 0.1)), 0, 3)


symbols = st.sampled_from(["", "a", "i", "u", "m", "p", "f", "s", "tʃ", "aʊ", "ɹ", "ɐ̃ʊ̃", "#", "k"])


@settings(max_examples=30, deadline=None)
@given(
    sounds=st.lists(st.tuples(symbols, st.floats(0.005, 0.4)), max_size=12),
    fps=st.sampled_from([12.5, 25.0, 29.97, 60.0]),
    frames=st.integers(0, 60),
)
def test_any_sequence_of_sounds_gives_bounded_curves(
    sounds: list[tuple[str, float]], fps: float, frames: int
) -> None:
    curves = lip_curves(spoken(*sounds), fps, frames)
    assert curves.shape == (frames, len(LIPS)) and curves.dtype == np.float32
    assert np.isfinite(curves).all() and (curves >= 0).all() and (curves <= 1).all()
