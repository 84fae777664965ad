"""Loudness against a sine whose loudness is known, the noise gate, and cuts at pauses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.loudness import SPEECH_LUFS, measure_loudness, normalize_loudness
from letstalk_core.media.audio.pauses import cut_at_pauses
from letstalk_core.media.audio.silence import gate_silence

RATE, STUDIO = 16_000, 48_000  # samples a second


def sine(level: float, seconds: float = 3.0, rate: int = STUDIO) -> Tensor:
    """(1, samples) of 1 kHz, whose peaks lie at `level` dB of full scale."""
    return 10 ** (level / 20) * torch.sin(2 * math.pi * 1000 * torch.arange(round(seconds * rate)) / rate)[None]


def test_a_sine_of_1_khz_at_full_scale_measures_what_the_standard_says() -> None:
    """BS.1770: 0 dBFS in one channel reads -3.01 LKFS, and 20 dB less 20 less."""
    assert measure_loudness(sine(0.0), STUDIO) == pytest.approx(-3.01, abs=0.1)
    assert measure_loudness(sine(-20.0), STUDIO) == pytest.approx(-23.01, abs=0.1)


@pytest.mark.parametrize("level", [-45.0, -23.0, 0.0])
def test_loud_and_quiet_sound_come_out_alike(level: float) -> None:
    out = normalize_loudness(sine(level, rate=16_000), 16_000)
    assert measure_loudness(out, 16_000) == pytest.approx(SPEECH_LUFS, abs=0.1)


def test_pauses_do_not_count() -> None:
    speech = torch.cat([sine(-30.0), torch.zeros(1, 5 * STUDIO)], 1)
    assert measure_loudness(normalize_loudness(speech, STUDIO), STUDIO) == pytest.approx(SPEECH_LUFS, abs=0.3)


@pytest.mark.parametrize("sound", [torch.zeros(1, STUDIO), sine(-20.0, 0.2)])
def test_silence_and_what_is_too_short_to_measure_stay_as_they_are(sound: Tensor) -> None:
    assert torch.equal(normalize_loudness(sound, STUDIO), sound)


def test_noise_is_not_made_speech() -> None:
    hiss = sine(-58.0)
    gain = float(normalize_loudness(hiss, STUDIO).abs().max() / hiss.abs().max())
    assert gain == pytest.approx(10**1.5, rel=1e-3)


def test_what_cannot_be_measured_is_named() -> None:
    with pytest.raises(ConfigError, match="8000 Hz or more"):
        measure_loudness(torch.zeros(1, 100), 10)


# the noise gate


def speech_with_pause(pause: float, noise_db: float = -66.0) -> Tensor:
    """A second of tone, a pause, a second of tone; faint noise over all of it."""
    tone = 0.3 * torch.sin(torch.arange(RATE) * 0.1)
    sound = torch.cat([tone, torch.zeros(round(pause * RATE)), tone])
    return (sound + 10 ** (noise_db / 20) * torch.randn(sound.shape))[None]


def test_a_pause_becomes_digital_silence_and_speech_stays_as_it_is() -> None:
    sound = speech_with_pause(1.0)
    gated = gate_silence(sound, RATE)
    middle = slice(round(1.25 * RATE), round(1.75 * RATE))
    assert gated[:, middle].count_nonzero() == 0 and sound[:, middle].count_nonzero() > 0
    speech = torch.cat([torch.arange(RATE), torch.arange(2 * RATE, 3 * RATE)])
    assert torch.equal(gated[:, speech], sound[:, speech])


def test_a_short_gap_inside_a_word_is_kept() -> None:
    sound = speech_with_pause(0.25)
    assert torch.equal(gate_silence(sound, RATE), sound)


def test_the_gate_makes_no_click() -> None:
    hum = 5e-4 * torch.ones(1, 3 * RATE)  # a constant: every step of the gain is a step of the sound
    hum[:, RATE : RATE + 800] = 0.3
    gated = gate_silence(hum, RATE)
    steps = gated.diff().abs()
    edges = torch.zeros_like(steps, dtype=torch.bool)
    edges[:, [RATE - 1, RATE + 799]] = True
    assert gated.count_nonzero() < hum.numel()
    assert steps[~edges].max() <= 5e-4 / 160 * 1.01  # one hundredth of a second from 1 to 0


def test_all_channels_open_together_at_any_rate() -> None:
    left = speech_with_pause(1.0)
    gated = gate_silence(torch.cat([left, torch.full_like(left, 1e-5)]), 44100)
    assert gated[1, :1000].count_nonzero() == 1000


def test_silence_itself_and_no_threshold_change_nothing() -> None:
    assert gate_silence(torch.zeros(1, 50), RATE).count_nonzero() == 0
    sound = speech_with_pause(1.0)
    assert torch.equal(gate_silence(sound, RATE, -math.inf), sound)


@pytest.mark.parametrize("shape, threshold", [((100,), -60.0), ((1, 0), -60.0), ((1, 100), 3.0)])
def test_bad_settings_are_refused(shape: tuple[int, ...], threshold: float) -> None:
    with pytest.raises(ConfigError, match="shape|threshold"):
        gate_silence(torch.zeros(shape), RATE, threshold)


# cuts at pauses


def speech(stretches: list[float], pause: float, noise: float = 0.001) -> Tensor:
    """Loud stretches of these seconds, with pauses of room noise between them."""
    generator = torch.Generator().manual_seed(0)
    rooms = [torch.randn(round(pause * RATE), generator=generator) * noise for _ in stretches]
    words = [torch.randn(round(s * RATE), generator=generator) * 0.1 for s in stretches]
    return torch.cat([part for pair in zip(words, rooms, strict=True) for part in pair])


@settings(max_examples=30)
@given(
    stretches=st.lists(st.floats(1.0, 6.0), min_size=2, max_size=8),
    seconds=st.floats(1.5, 6.0),
    fps=st.sampled_from([10.0, 25.0, 30.0]),
)
def test_cuts_are_in_pauses_and_no_part_is_too_short(stretches: list[float], seconds: float, fps: float) -> None:
    pause = 0.6
    waveform = speech(stretches, pause)
    cuts = cut_at_pauses(waveform, fps, seconds)
    assert cuts[0] == 0
    edges = [*(cut / fps for cut in cuts), len(waveform) / RATE]
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        assert last - first >= seconds - 1 / fps - 0.02 or len(cuts) == 1
    ends = torch.tensor([sum(stretches[: i + 1]) + i * pause for i in range(len(stretches))])
    for cut in edges[1:-1]:
        inside = (cut + 1 / fps > ends + 0.2) & (cut < ends + pause - 0.2)
        assert inside.any(), (cut, ends)


def test_speech_without_a_pause_stays_whole_and_a_late_pause_is_waited_for() -> None:
    assert cut_at_pauses(speech([20.0], 0.0), 25.0, 3.0) == [0]
    late = cut_at_pauses(speech([11.0, 9.0], 0.6), 25.0, 3.0)
    assert len(late) == 2 and 11.2 <= late[1] / 25 <= 11.4


def test_parts_of_no_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="longer than 1 s"):
        cut_at_pauses(speech([3.0], 0.5), 25.0, 0.5)
