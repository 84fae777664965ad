"""Speech from espeak-ng: sound, phoneme times, and what happens without the library."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest

from letstalk_core.errors import ConfigError, DependencyError
from letstalk_research.data.synthetic import speech, texts
from letstalk_research.data.synthetic.speech import Utterance, join, silence, synthesise
from letstalk_research.data.synthetic.variation import CODECS, paced, shifted, through_codec, varied

from .test_speech_library import RATE, assert_covered, assert_vowels_in_time, bursts, edges

pytestmark = pytest.mark.usefixtures("espeak")


@pytest.mark.parametrize("voice", ["en-us", "de+f3", "fr+klatt2", "pl"])
def test_phonemes_cover_the_whole_sound(voice: str) -> None:
    utterance = synthesise("Hello mama, one two three. Who are you?", voice)
    assert_covered(utterance)
    assert utterance.waveform.dtype == np.float32 and 0.05 < np.abs(utterance.waveform).max() <= 1.05


def test_phoneme_times_agree_with_the_sound() -> None:
    utterance = synthesise("assa, assa", "en-us", rate=120)
    heard = [p for p in utterance.phonemes if p.end_s - p.start_s > 0.01]  # the last pause may have no sample
    loud = {p.symbol: level(utterance, p.start_s, p.end_s) for p in heard}
    vowels = [v for s, v in loud.items() if s in {"æ", "ə"}]
    assert vowels and min(vowels) > 1.5 * loud["s"] > 5 * loud[speech.SILENCE]


def level(utterance: Utterance, start_s: float, end_s: float) -> float:
    part = utterance.waveform[round(start_s * 16000) : round(end_s * 16000)]
    return float(np.sqrt(np.mean(part**2)))


def test_words_of_another_language_leave_no_marks() -> None:
    symbols = [p.symbol for p in synthesise("mein Computer und my friend", "de").phonemes]
    assert not [s for s in symbols if "(" in s or "ˈ" in s or "ˌ" in s]


def test_faster_speech_is_shorter() -> None:
    slow, fast = (synthesise("one two three four", "en-us", rate=r).seconds for r in (100, 200))
    assert fast < 0.75 * slow


def test_joining_moves_phonemes_and_merges_pauses() -> None:
    word = synthesise("hello.", "en-us")
    joined = join([silence(0.3), word, silence(0.5)])
    assert joined.seconds == pytest.approx(word.seconds + 0.8, abs=1e-3)
    assert_covered(joined)
    symbols = [p.symbol for p in joined.phonemes]
    assert symbols[0] == speech.SILENCE and symbols[-1] == speech.SILENCE
    assert not any(a == b == speech.SILENCE for a, b in zip(symbols, symbols[1:], strict=False))
    first = next(p for p in joined.phonemes if p.symbol)
    assert first.start_s == pytest.approx(0.3 + next(p for p in word.phonemes if p.symbol).start_s, abs=1e-6)


def test_scaling_never_clips() -> None:
    word = synthesise("hello.", "en-us")
    assert np.abs(word.scaled(50.0).waveform).max() <= 0.9901
    np.testing.assert_allclose(word.scaled(0.5).waveform, 0.5 * word.waveform, atol=1e-7)


def test_without_the_library_the_error_names_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(speech, "_ENGINE", None)
    monkeypatch.delenv("LETSTALK_ESPEAK_LIBRARY", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DependencyError, match=r"apt install espeak-ng.*espeakng-loader") as caught:
        synthesise("hello", "en-us")
    assert "\n" not in str(caught.value)


def test_a_library_set_by_hand_must_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "_ENGINE", None)
    monkeypatch.setenv("LETSTALK_ESPEAK_LIBRARY", "/nowhere/libespeak-ng.so")
    with pytest.raises(DependencyError, match="/nowhere/libespeak-ng.so"):
        synthesise("hello", "en-us")


def test_splits_share_no_word_pattern_or_voice_variant() -> None:
    for language, kinds in texts.LANGUAGES.items():
        every = {
            split: {w for k in kinds for w in texts.entries(language, k, split)} for split in ("train", "held_out")
        }
        assert every["train"] and every["held_out"]
        assert not every["train"] & every["held_out"], language
    assert not set(texts.PATTERNS["train"]) & set(texts.PATTERNS["held_out"])
    assert not set(texts.TRAIN_VARIANTS) & set(texts.HELD_OUT_VARIANTS)


def test_sentences_repeat_for_a_seed_and_differ_between_seeds() -> None:
    def sentences(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [texts.random_sentence(rng, language, "train") for language in texts.LANGUAGES]

    assert sentences(1) == sentences(1) != sentences(2)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_random_utterances_last_long_enough_and_stay_in_their_split(split: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(6):
        utterance = texts.random_utterance(rng, split, min_seconds=2.0)
        assert utterance.seconds >= 2.0
        assert_covered(utterance)
        variant = utterance.voice.partition("+")[2]
        assert variant in (texts.TRAIN_VARIANTS if split == "train" else texts.HELD_OUT_VARIANTS)


def test_unknown_voices_and_splits_and_texts_without_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="xx-nothing"):
        synthesise("hello", "xx-nothing")
    with pytest.raises(ConfigError, match="nothing to say"):
        synthesise("", "en-us")
    with pytest.raises(ConfigError, match="split='test'"):
        texts.random_utterance(np.random.default_rng(0), "test", 1.0)


# shifted, paced and coded speech keeps its times


def test_times_follow_the_sound_when_it_is_shifted_and_paced() -> None:
    for changed in (shifted(bursts(), 1.25), shifted(bursts(), 0.8), paced(bursts(), 1.2), paced(bursts(), 0.8)):
        assert_covered(changed)
        assert_vowels_in_time(changed, 0.05)  # windows of overlap-add, 0.06 s, smear what starts out of silence


def pitch(utterance: Utterance) -> float:
    vowel = next(p for p in utterance.phonemes if p.symbol)
    part = utterance.waveform[round(vowel.start_s * RATE) : round(vowel.end_s * RATE)]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), RATE))
    return float(np.argmax(spectrum))


def test_shifting_moves_pitch_and_pacing_does_not() -> None:
    assert pitch(shifted(bursts(), 1.25)) == pytest.approx(275, abs=4)
    slow = paced(bursts(), 0.8)
    assert pitch(slow) == pytest.approx(220, abs=4)
    assert slow.seconds == pytest.approx(bursts().seconds / 0.8, abs=1e-3)
    for change in (shifted, paced):
        with pytest.raises(ConfigError, match=r"factor=3.0 must be in 0.5..2"):
            change(bursts(), 3.0)


@pytest.mark.parametrize("codec", CODECS)
def test_codecs_keep_time(codec: str) -> None:
    clean = bursts()
    coded = through_codec(clean.waveform, codec, CODECS[codec][1][0])
    assert coded.shape == clean.waveform.shape and coded.dtype == np.float32
    assert edges(Utterance(coded, ())) == pytest.approx(edges(clean), abs=0.01)
    with pytest.raises(ConfigError, match="codec='wax'"):
        through_codec(clean.waveform, "wax", 1000)


def test_variation_hangs_on_its_random_numbers_alone() -> None:
    one, two = (varied(bursts(), np.random.default_rng(3)) for _ in range(2))
    assert one.phonemes == two.phonemes and np.array_equal(one.waveform, two.waveform)
    lengths = {len(varied(bursts(), np.random.default_rng(i)).waveform) for i in range(8)}
    assert len(lengths) > 4
