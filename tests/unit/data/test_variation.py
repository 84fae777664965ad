"""Shifted, paced and coded speech keeps its times."""

from __future__ import annotations

import numpy as np
import pytest

from letstalk_core.errors import ConfigError
from letstalk_research.data.synthetic.speech import Utterance
from letstalk_research.data.synthetic.variation import CODECS, paced, shifted, through_codec, varied

from .test_speech_library import RATE, assert_covered, bursts, edges


def test_times_follow_the_sound_when_it_is_shifted_and_paced() -> None:
    for changed in (shifted(bursts(), 1.25), shifted(bursts(), 0.8), paced(bursts(), 1.2), paced(bursts(), 0.8)):
        assert_covered(changed)
        vowels = [t for p in changed.phonemes if p.symbol for t in (p.start_s, p.end_s)]
        # the windows of overlap-add, 0.06 s, smear what starts out of silence
        assert edges(changed) == pytest.approx(vowels, abs=0.05)


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
