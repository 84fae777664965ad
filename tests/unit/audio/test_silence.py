"""The noise gate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.silence import gate_silence

RATE = 16000


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
