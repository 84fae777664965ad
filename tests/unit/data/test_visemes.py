"""Mouth curves from made-up phonemes (no synthesiser needed), and movement of the rest of the face."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letstalk_core.errors import ConfigError
from letstalk_research.data.synthetic.motion import MOTION, motion_from_speech, neutral_pose, random_pose
from letstalk_research.data.synthetic.speech import SAMPLE_RATE_HZ, Phoneme, Utterance
from letstalk_research.data.synthetic.visemes import CURVES, viseme_curves, viseme_targets

JAW, WIDE, ROUND, TEETH, VOICED, ENERGY = range(6)


def spoken(*sounds: tuple[str, float]) -> Utterance:
    """An utterance of (symbol, seconds); a hum where there is a symbol, nothing in pauses."""
    edges = np.cumsum([0.0, *(seconds for _, seconds in sounds)])
    phonemes = tuple(Phoneme(s, a, b) for (s, _), (a, b) in zip(sounds, pairwise(edges.tolist()), strict=True))
    times = np.arange(round(edges[-1] * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    wave = 0.3 * np.sin(2 * np.pi * 120 * times)
    for p in phonemes:
        if not p.symbol:
            wave[(times >= p.start_s) & (times < p.end_s)] = 0
    return Utterance(wave.astype(np.float32), phonemes)


def at(utterance: Utterance, seconds: float) -> np.ndarray:
    """Curves at one moment."""
    fps = 200.0
    return viseme_curves(utterance, fps, round(utterance.seconds * fps) + 10)[int(seconds * fps)]


@pytest.mark.parametrize("sound", ["m", "b"])
@pytest.mark.parametrize("offset", [0.0, 0.01, 0.02, 0.03])
def test_a_bilabial_closes_the_mouth_in_some_frame_while_its_neighbours_open_it(sound: str, offset: float) -> None:
    utterance = spoken(("", 0.3 + offset), ("a", 0.16), (sound, 0.07), ("a", 0.16), ("", 0.3))
    curves = viseme_curves(utterance, 25, 26)
    inside = curves[round((0.46 + offset) * 25) - 2 : round((0.53 + offset) * 25) + 2, JAW]
    assert inside.min() < 0.08
    assert at(utterance, 0.38 + offset)[JAW] > 0.6 and at(utterance, 0.62 + offset)[JAW] > 0.6


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.02, 0.03])
def test_p_closes_before_its_burst(offset: float) -> None:
    utterance = spoken(("", 0.3 + offset), ("a", 0.2), ("p", 0.035), ("a", 0.2), ("", 0.3))
    assert viseme_curves(utterance, 25, 26)[9:16, JAW].min() < 0.08
    assert at(utterance, 0.48 + offset)[JAW] < 0.02  # the burst is at 0.5


@pytest.mark.parametrize(
    ("sounds", "ranges"),
    [
        *(("t" + s, {ROUND: (0.8, 1.0), WIDE: (0.0, 0.2)}) for s in ("u", "uː", "o", "w", "y")),
        ("tiː", {WIDE: (0.85, 1.0), ROUND: (0.0, 0.1)}),
        *(("a" + s, {TEETH: (0.9, 1.0), JAW: (0.05, 0.2)}) for s in "fv"),
        (" a", {JAW: (0.85, 1.0)}),
    ],
)
def test_each_kind_of_sound_has_its_mouth(sounds: str, ranges: dict[int, tuple[float, float]]) -> None:
    """A sound between two others."""
    around, sound = sounds[0].strip(), sounds[1:]
    mouth = at(spoken((around, 0.08), (sound, 0.14), (around, 0.08)), 0.15)
    for curve, (low, high) in ranges.items():
        assert low <= mouth[curve] <= high, curve


def test_lips_round_before_a_rounded_vowel() -> None:
    early = at(spoken(("s", 0.12), ("u", 0.15)), 0.07)[ROUND]
    assert early > at(spoken(("s", 0.12), ("i", 0.15)), 0.07)[ROUND] + 0.4


def test_long_pauses_close_the_mouth_and_short_ones_do_not_freeze_it() -> None:
    pause = at(spoken(("a", 0.3), ("", 0.3), ("a", 0.3)), 0.45)
    assert np.abs(pause[:5]).max() < 1e-3
    short = at(spoken(("a", 0.3), ("", 0.06), ("a", 0.3)), 0.33)
    assert short[JAW] > 0.2


def test_frames_past_the_sound_are_at_rest() -> None:
    curves = viseme_curves(spoken(("a", 0.4)), 25, 40)
    assert np.abs(curves[14:]).max() < 1e-3
    with pytest.raises(ConfigError, match="fps=0"):
        viseme_curves(spoken(("a", 0.1)), 0, 3)


def test_quiet_speech_is_normalised_but_softer_syllables_open_less() -> None:
    utterance = spoken(("a", 0.4), ("", 0.25), ("a", 0.4))
    wave = utterance.waveform.copy()
    wave[: len(wave) // 2] *= 0.2
    mouth = Utterance(wave, utterance.phonemes)
    assert at(mouth, 0.2)[JAW] < at(mouth, 0.85)[JAW] - 0.12
    np.testing.assert_allclose(at(utterance.scaled(0.1), 0.2), at(utterance, 0.2), atol=0.02)


def test_diphthongs_move_through_two_shapes() -> None:
    utterance = spoken(("aɪ", 0.3))
    assert at(utterance, 0.08)[JAW] > at(utterance, 0.24)[JAW] + 0.3
    assert [sign for sign, _ in viseme_targets("tʃ")] == ["ʃ"]


def test_voiced_tells_vowels_from_hisses() -> None:
    utterance = spoken(("a", 0.2), ("s", 0.2), ("a", 0.2))
    assert at(utterance, 0.1)[VOICED] > 0.9 and at(utterance, 0.3)[VOICED] < 0.1


symbols = st.sampled_from(["", "a", "i", "u", "m", "p", "f", "s", "tʃ", "aʊ", "ɹ", "ɐ̃ʊ̃", "#", "k"])
sounds = st.lists(st.tuples(symbols, st.floats(0.005, 0.4)), max_size=12)


@settings(max_examples=25, deadline=None)
@given(
    sounds=sounds,
    fps=st.sampled_from([12.5, 25.0, 29.97, 60.0]),
    frames=st.integers(0, 60),
    seed=st.integers(0, 9),
)
def test_any_sequence_of_sounds_gives_bounded_curves(
    sounds: list[tuple[str, float]], fps: float, frames: int, seed: int
) -> None:
    utterance = spoken(*sounds)
    curves = viseme_curves(utterance, fps, frames)
    assert curves.shape == (frames, len(CURVES)) and curves.dtype == np.float32
    assert np.isfinite(curves).all() and (curves >= 0).all() and (curves <= 1).all()
    motion = motion_from_speech(utterance, frames, fps, np.random.default_rng(seed))
    assert motion.shape == (frames, len(MOTION)) and np.isfinite(motion).all()
    np.testing.assert_array_equal(motion[:, :4], curves[:, :4])


def test_movement_repeats_for_a_seed_and_differs_between_seeds() -> None:
    utterance = spoken(("a", 0.5), ("", 0.4), ("u", 0.5))
    first, again, other = (motion_from_speech(utterance, 60, 25, np.random.default_rng(s)) for s in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    np.testing.assert_array_equal(first[:, :4], other[:, :4])  # lips follow the sound alone


def test_faces_blink_and_stay_within_small_poses() -> None:
    motion = motion_from_speech(spoken(("a", 20.0)), 500, 25, np.random.default_rng(0))
    column = {name: motion[:, i] for i, name in enumerate(MOTION)}
    blinks = np.flatnonzero((column["blink"][1:] >= 1) & (column["blink"][:-1] < 1))
    assert 4 <= len(blinks) <= 10
    assert np.abs(column["yaw"]).max() <= 0.4 and np.abs(column["pitch"]).max() <= 0.25
    assert np.abs(column["roll"]).max() <= 0.04 and np.abs(column["scale"] - 1).max() <= 0.01
    assert np.abs(column["gaze_x"]).max() <= 0.35
    for name in ("yaw", "pitch", "roll", "shift_x", "shift_y", "scale"):  # smooth: no jumps between frames
        assert np.abs(np.diff(column[name])).max() < 0.12 * np.ptp(column[name]) + 1e-3


def test_amount_zero_leaves_only_lips_smile_and_blinks() -> None:
    motion = motion_from_speech(spoken(("a", 2.0)), 50, 25, np.random.default_rng(0), amount=0.0)
    head = motion[:, 6:]
    np.testing.assert_allclose(head, np.tile([0] * 8 + [1], (50, 1)), atol=1e-6)


def test_random_poses_cover_the_range_of_speech() -> None:
    poses = random_pose(np.random.default_rng(0), 4000)
    lips = poses[:, :4]
    assert (lips.min(0) == 0).all() and (lips.max(0) > 0.98).all()
    assert ((lips[:, 0] > 0.8) & (lips[:, 1] > 0.8)).any() and ((lips[:, 0] > 0.8) & (lips[:, 2] > 0.8)).any()
    assert 0.1 < (poses[:, 5] > 0).mean() < 0.2
    moving = motion_from_speech(spoken(("a", 30.0)), 750, 25, np.random.default_rng(1))
    assert (moving.min(0) >= poses.min(0) - 0.03).all() and (moving.max(0) <= poses.max(0) + 0.03).all()


def test_neutral_poses_have_open_eyes_and_mostly_closed_mouths() -> None:
    rng = np.random.default_rng(0)
    poses = np.stack([neutral_pose(rng) for _ in range(200)])
    assert poses.shape == (200, len(MOTION))
    assert (poses[:, 5] == 0).all() and (poses[:, 0] == 0).mean() > 0.8 and poses[:, 0].max() <= 0.2
