"""Encoder states of a recording: in windows, as a stream, in memory or in a file."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError, MediaError, NumericalError, OutputError
from letstalk_core.media.audio import track as module
from letstalk_core.media.audio.alignment import frame_count, window_states
from letstalk_core.media.audio.decode import WaveformSource
from letstalk_core.media.audio.features import AudioFeatures, encode_audio, plan_windows
from letstalk_core.media.audio.padding import PaddedSource
from letstalk_core.media.audio.track import AudioTrack
from letstalk_core.networks.audio_encoder import AudioEncoder

from .conftest import small

Tone = Callable[..., Tensor]


def local(encoder: AudioEncoder) -> AudioEncoder:
    """The same encoder with attention switched off, so that its output depends on near sound only."""
    for layer in encoder.encoder.layers:  # type: ignore[union-attr]
        torch.nn.init.zeros_(layer.attention.out_proj.weight)
    return encoder


@given(
    frames=st.integers(1, 3000),
    fps=st.sampled_from([12.5, 25.0, 30.0]),
    window=st.floats(0.1, 30),
    context=st.floats(0, 4),
)
def test_windows_deliver_every_frame_once_with_context_on_both_sides(
    frames: int, fps: float, window: float, context: float
) -> None:
    plan = plan_windows(frames, fps, window, context)
    assert [f for w in plan for f in range(w.first, w.first + w.count)] == list(range(frames))
    extra = round(context * fps)
    for w in plan:
        assert w.begin == max(0, w.first - extra) or len(plan) == 1
        assert w.end == min(frames, w.first + w.count + extra)
        assert w.end - w.begin <= frame_count(window, fps) + 2 * extra


@pytest.mark.parametrize("seconds", [0.025, 0.3, 3.37])
@pytest.mark.parametrize("fps", [12.5, 23.976, 60.0])
def test_short_sound_equals_one_pass_exactly(tone: Tone, seconds: float, fps: float) -> None:
    encoder, waveform = small(), tone(seconds)
    frames = frame_count(seconds, fps)
    found = torch.cat(list(encode_audio(encoder, waveform, fps)))
    assert found.shape == (frames, 3, 32)
    torch.testing.assert_close(found, encoder.features(waveform, frames), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "variant", [{}, {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}]
)
def test_windows_equal_one_pass_exactly_but_for_attention(tone: Tone, variant: dict[str, Any]) -> None:
    encoder, waveform = local(small(**variant)), tone(9.0)
    frames = frame_count(9.0, 25.0)
    parts = list(encode_audio(encoder, waveform, 25.0, window_seconds=2.0, context_seconds=0.5))
    assert len(parts) == 5
    # 1e-4: float32 sums over windows of other lengths; group norm statistics from float64 moments
    torch.testing.assert_close(torch.cat(parts), encoder.features(waveform, frames), rtol=1e-4, atol=1e-4)


def test_the_default_context_covers_the_positional_convolution_of_wav2vec2_base(tone: Tone) -> None:
    encoder, waveform = local(small(num_conv_pos_embeddings=128)), tone(30.0)
    parts = list(encode_audio(encoder, waveform))
    assert len(parts) == 2
    torch.testing.assert_close(torch.cat(parts), encoder.features(waveform, 750), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("samples", "shown"), [(16_001, 26), (16_000, 25), (20_480, 32), (500, 1)])
def test_sound_as_the_authors_hear_it_ends_in_plain_zeros(tone: Tone, samples: int, shown: int) -> None:
    """Against the encoder on the whole padded waveform; 1e-4 as above."""
    encoder, waveform = small(), tone(2.0)[:samples] + 0.1
    padded = PaddedSource(WaveformSource(waveform), 25.0, 16)
    features = AudioFeatures.encode(encoder, padded, 25.0)
    frames = -(-shown // 16) * 16
    assert (padded.shown, features.frames) == (shown, frames)
    normal = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    convolved = encoder.conv_features(F.pad(normal, (0, 640 * (frames - shown)))[None])
    at_frames = F.interpolate(convolved.mT, size=frames, mode="linear", align_corners=True).mT
    torch.testing.assert_close(features.all(), encoder.contextualise(at_frames)[0], rtol=1e-4, atol=1e-4)


class Endless(WaveformSource):
    """Counts how far a stream has been read."""

    def __init__(self, waveform: Tensor) -> None:
        super().__init__(waveform)
        self.read = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.read = 0
        for block in super().__iter__():
            self.read += block.numel()
            yield block


def test_sound_is_read_only_as_far_as_needed(tone: Tone) -> None:
    source = Endless(tone(20.0))
    stream = encode_audio(small(), source, 25.0, window_seconds=2.0, context_seconds=0.5)
    next(stream)
    assert source.read <= 4 * 16000


def test_silence_gives_finite_states() -> None:
    assert torch.isfinite(torch.cat(list(encode_audio(small(), torch.zeros(80000), 25.0, 1.0, 0.2)))).all()


def test_unusable_sound_and_settings_are_refused(tone: Tone, tmp_path: Path) -> None:
    encoder = small()
    with pytest.raises(MediaError, match="at least 25 ms"):
        next(encode_audio(encoder, torch.zeros(399)))
    with pytest.raises(MediaError, match="no such file"):
        next(encode_audio(encoder, tmp_path / "missing.wav"))
    for window, context in ((0.0, 1.0), (2.0, -1.0), (float("inf"), 1.0), (2.0, float("nan"))):
        with pytest.raises(ConfigError):
            next(encode_audio(encoder, tone(1.0), 25.0, window, context))
    with pytest.raises(ConfigError, match="fps"):
        next(encode_audio(encoder, tone(1.0), 0.0))


def test_an_encoder_that_gives_nan_is_reported(tone: Tone) -> None:
    encoder = small()
    torch.nn.init.constant_(encoder.feature_projection.projection.bias, float("nan"))  # type: ignore[union-attr,arg-type]
    with pytest.raises(NumericalError, match="NaN"):
        next(encode_audio(encoder, tone(1.0)))


def test_sound_that_shrinks_between_the_passes_is_reported(tone: Tone) -> None:
    source = WaveformSource(tone(10.0))
    source.moments()
    source.waveform = source.waveform[:50000]
    with pytest.raises(MediaError, match="became shorter"):
        list(encode_audio(small(), source, 25.0, 2.0, 0.5))


@given(chunks=st.lists(st.integers(1, 9), min_size=1, max_size=12), clip=st.integers(1, 8), half=st.integers(0, 3))
def test_streamed_windows_equal_those_of_the_whole(chunks: list[int], clip: int, half: int) -> None:
    frames = sum(chunks)
    states = torch.arange(float(frames)).reshape(-1, 1, 1)
    streamed = AudioFeatures(iter(states.split(chunks)), frames, keep=8)
    whole = AudioFeatures(states)
    for first in range(0, frames, clip):
        expected = window_states(states, first, clip, 2 * half + 1)
        assert torch.equal(streamed.windows(first, clip, 2 * half + 1), expected)
        assert torch.equal(whole.windows(first, clip, 2 * half + 1), expected)


def test_a_stream_forgets_old_frames_and_says_so() -> None:
    states = torch.zeros(500, 1, 1)
    features = AudioFeatures(iter(states.split(10)), 500, keep=20)
    for first in range(0, 400, 10):
        features.windows(first, 10, 5)
    with pytest.raises(ConfigError, match="is gone"):
        features.windows(0, 10, 5)
    with pytest.raises(ConfigError, match="is gone"):
        features.all()


@pytest.mark.parametrize("bad", [torch.zeros(0, 1, 1), torch.zeros(3, 4)])
def test_states_of_a_wrong_shape_are_refused(bad: Tensor) -> None:
    with pytest.raises(ConfigError):
        AudioFeatures(bad)
    with pytest.raises(ConfigError):
        AudioFeatures(torch.zeros(3, 1, 1), frames=4)
    with pytest.raises(ConfigError, match="number of frames"):
        AudioFeatures(iter([bad]))


@pytest.mark.parametrize("first", [0, 1, 30, 77])
def test_features_from_a_frame_on_are_those_of_a_whole_pass(tone: Tone, first: int) -> None:
    encoder, sound, settings = small(), tone(4.0), {"window_seconds": 1.0, "context_seconds": 0.5}
    whole = AudioFeatures.encode(encoder, sound, **settings)
    later = AudioFeatures.encode(encoder, sound, **settings, first=first)
    assert later.frames == whole.frames
    for frame in range(first + 2, whole.frames - 4, 8):  # forward, as a run asks
        assert torch.equal(later.windows(frame, 4, 5), whole.windows(frame, 4, 5))
    if first > 50:
        with pytest.raises(ConfigError, match="is gone"):
            AudioFeatures.encode(encoder, sound, **settings, first=first).windows(0, 4, 5)


# states of a recording, in memory or in a file


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
