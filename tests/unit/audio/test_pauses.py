from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.pauses import cut_at_pauses

RATE = 16_000


def speech(stretches: list[float], pause: float, noise: float = 0.001) -> Tensor:
    """Loud stretches of these seconds, with pauses of room noise between them."""
    generator = torch.Generator().manual_seed(0)
    rooms = [torch.randn(round(pause * RATE), generator=generator) * noise for _ in stretches]
    words = [torch.randn(round(s * RATE), generator=generator) * 0.1 for s in stretches]
    return torch.cat([part for pair in zip(words, rooms, strict=True) for part in pair])


@given(
    stretches=st.lists(st.floats(1.0, 6.0), min_size=2, max_size=8),
    seconds=st.floats(1.5, 6.0),
    fps=st.sampled_from([10.0, 25.0, 30.0]),
)
def test_cuts_are_in_pauses_and_no_part_is_shorter_than_asked(
    stretches: list[float], seconds: float, fps: float
) -> None:
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
