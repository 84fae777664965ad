"""Loudness against a sine whose loudness is known, and what has none."""

from __future__ import annotations

import math

import pytest
import torch

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.loudness import SPEECH_LUFS, measure_loudness, normalize_loudness

RATE = 48_000


def sine(level: float, seconds: float = 3.0, rate: int = RATE) -> torch.Tensor:
    """(1, samples) of 1 kHz, whose peaks lie at `level` dB of full scale."""
    return 10 ** (level / 20) * torch.sin(2 * math.pi * 1000 * torch.arange(round(seconds * rate)) / rate)[None]


def test_a_sine_of_1_khz_at_full_scale_measures_what_the_standard_says() -> None:
    """BS.1770: 0 dBFS in one channel reads -3.01 LKFS, and 20 dB less 20 less."""
    assert measure_loudness(sine(0.0), RATE) == pytest.approx(-3.01, abs=0.1)
    assert measure_loudness(sine(-20.0), RATE) == pytest.approx(-23.01, abs=0.1)


@pytest.mark.parametrize("level", [-45.0, -23.0, 0.0])
def test_loud_and_quiet_sound_come_out_alike(level: float) -> None:
    out = normalize_loudness(sine(level, rate=16_000), 16_000)
    assert measure_loudness(out, 16_000) == pytest.approx(SPEECH_LUFS, abs=0.1)


def test_pauses_do_not_count() -> None:
    speech = torch.cat([sine(-30.0), torch.zeros(1, 5 * RATE)], 1)
    assert measure_loudness(normalize_loudness(speech, RATE), RATE) == pytest.approx(SPEECH_LUFS, abs=0.3)


@pytest.mark.parametrize("sound", [torch.zeros(1, RATE), sine(-20.0, 0.2)])
def test_silence_and_what_is_too_short_to_measure_stay_as_they_are(sound: torch.Tensor) -> None:
    assert torch.equal(normalize_loudness(sound, RATE), sound)


def test_noise_is_not_made_speech() -> None:
    hiss = sine(-58.0)
    assert float(normalize_loudness(hiss, RATE).abs().max() / hiss.abs().max()) == pytest.approx(10**1.5, rel=1e-3)


def test_what_cannot_be_measured_is_named() -> None:
    with pytest.raises(ConfigError, match="8000 Hz or more"):
        measure_loudness(torch.zeros(1, 100), 10)
