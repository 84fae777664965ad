"""Encoder states of a recording, in memory or in a file."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from letstalk_core.errors import ConfigError, NumericalError, OutputError
from letstalk_core.media.audio import track as module
from letstalk_core.media.audio.alignment import window_states
from letstalk_core.media.audio.track import AudioTrack


def test_a_track_gives_the_windows_of_its_states_and_repeats_the_ends() -> None:
    states = torch.randn(10, 3, 4)
    track = AudioTrack(states, 25.0, kind="demo")
    assert (track.frames, track.layers, track.dim) == (10, 3, 4)
    assert torch.equal(track.windows(7, 6, 5), window_states(states, 7, 6, 5))
    assert torch.equal(track.windows(0, 1, 3)[0], states[[0, 0, 1]])


@pytest.mark.parametrize("limit", [0, 10**9])
def test_blocks_become_the_same_states_in_memory_and_in_a_file(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPOOL_BYTES", limit)
    states = torch.randn(10, 3, 4)
    track = AudioTrack.build(states.split(4), 10, 25.0, waveform=torch.zeros(1, 6400), spool=tmp_path / "temp")
    assert torch.equal(track.states, states)
    assert len(list(tmp_path.rglob("*.bin"))) == (limit == 0)
    del track
    gc.collect()
    assert list(tmp_path.rglob("*.bin")) == []


def test_a_failing_encoder_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPOOL_BYTES", 0)
    broken = torch.full((3, 2, 2), torch.nan)
    with pytest.raises(NumericalError, match="NaN"):
        AudioTrack.build([torch.zeros(2, 2, 2), broken], 5, 25.0, spool=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_spool_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPOOL_BYTES", 0)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        AudioTrack.build([torch.zeros(2, 2, 2)], 2, 25.0, spool=tmp_path / "file")


@pytest.mark.parametrize("blocks", [[], [torch.zeros(2, 2, 2)], [torch.zeros(4, 2, 2)], [torch.zeros(3, 2)]])
def test_another_number_or_shape_of_frames_is_refused(blocks: list[torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match="frames"):
        AudioTrack.build(blocks, 3, 25.0)
