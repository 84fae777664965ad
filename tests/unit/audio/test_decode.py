from __future__ import annotations

import logging
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.media.audio.decode import AudioSource, WaveformSource, as_source, load_sound, load_waveform

Tone = Callable[..., Tensor]
WriteSound = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "codec", "delay", "error"),
    [
        ("a.wav", "pcm_s16le", 0, 1e-3),
        ("a.wav", "pcm_f32le", 0, 1e-6),
        ("a.flac", "flac", 0, 1e-3),
        ("a.mp3", "libmp3lame", 2000, 0.04),
        ("a.m4a", "aac", 1024, 0.02),
        ("a.ogg", "libopus", 640, 0.2),
        ("a.mp4", "aac", 1024, 0.02),
        ("a.mkv", "libopus", 640, 0.2),
    ],
)
def test_common_formats_decode_to_the_sound_that_was_written(
    tmp_path: Path, write_sound: WriteSound, tone: Tone, name: str, codec: str, delay: int, error: float
) -> None:
    rate = 48000 if codec == "libopus" else 16000
    written = tone(1.5)
    path = write_sound(tmp_path / name, tone(1.5, rate)[None], rate, codec)
    found = load_waveform(path)
    assert found.dtype == torch.float32 and abs(len(found) - len(written)) <= delay
    quiet = written - found[: len(written)] if len(found) >= len(written) else written[: len(found)] - found
    if codec != "libopus":  # its source was made, with other noise, at 48 kHz
        assert quiet.square().mean().sqrt() < error


def test_a_stream_of_blocks_equals_one_resampling_of_the_whole(
    tmp_path: Path, write_sound: WriteSound, tone: Tone
) -> None:
    waveform = tone(3.2, 44100)
    path = write_sound(tmp_path / "a.wav", waveform[None], 44100, "pcm_f32le")
    blocks = list(AudioSource(path))
    found = torch.cat(blocks)
    expected = WaveformSource(waveform, 44100).waveform
    assert len(blocks) > 1 and abs(len(found) - len(expected)) <= 1
    n = min(len(found), len(expected)) - 100
    low = 0.02  # the two low-pass filters differ near 8 kHz, where this signal has only noise
    assert (found[100:n] - expected[100:n]).square().mean().sqrt() < low
    shift = [(found[100:n] - expected[100 + k : n + k]).square().mean().item() for k in (-1, 0, 1)]
    assert min(shift) == shift[1]


def test_channels_are_mixed_to_their_mean(tmp_path: Path, write_sound: WriteSound, tone: Tone) -> None:
    stereo = torch.stack([tone(0.5), tone(0.5, seed=1)])
    path = write_sound(tmp_path / "a.wav", stereo, 16000, "pcm_f32le")
    torch.testing.assert_close(load_waveform(path), stereo.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(WaveformSource(stereo).waveform, stereo.mean(0))


def test_surround_sound_is_accepted(tmp_path: Path, write_sound: WriteSound, tone: Tone) -> None:
    path = write_sound(tmp_path / "a.wav", tone(0.5).expand(6, -1).contiguous(), 16000)
    assert AudioSource(path).seconds == 0.5


def test_statistics_equal_those_of_the_whole_waveform(tmp_path: Path, write_sound: WriteSound, tone: Tone) -> None:
    path = write_sound(tmp_path / "a.wav", tone(2.3)[None] + 0.1, 16000, "pcm_f32le")
    source, waveform = AudioSource(path), load_waveform(path)
    moments = source.moments()
    assert moments.mean == pytest.approx(waveform.mean().item(), rel=1e-4)
    assert moments.std == pytest.approx(waveform.std(correction=0).item(), rel=1e-4)
    assert source.samples == len(waveform) == 36800
    assert (source.seconds, source.sample_rate, source.source_rate) == (2.3, 16000, 16000)


def test_moments_of_a_convolution_equal_those_of_its_output(tone: Tone) -> None:
    waveform = tone(2.05) + 0.2
    source = WaveformSource(waveform)
    weight, bias = torch.randn(6, 1, 10), torch.randn(6)
    mean, variance = source.moments().convolved(weight, bias)
    normalised = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
    output = torch.nn.functional.conv1d(normalised[None, None], weight, bias, stride=5)[0].double()
    torch.testing.assert_close(mean, output.mean(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(variance, output.var(1, correction=0), rtol=1e-4, atol=1e-4)


def test_memory_does_not_grow_with_length(tmp_path: Path, write_sound: WriteSound) -> None:
    peaks = []
    for seconds in (20, 120):
        path = write_sound(tmp_path / f"{seconds}.wav", torch.zeros(1, seconds * 16000), 16000)
        tracemalloc.start()  # sees NumPy's memory, through which every block passes
        largest = max(block.numel() for block in AudioSource(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert largest < 3 * 16000
    assert peaks[1] < 1.5 * peaks[0] + 100_000


def _wav(samples: bytes, claimed: int, bits: int = 16, kind: int = 1) -> bytes:
    width = bits // 8
    riff = struct.pack("<4sI4s4sI", b"RIFF", (36 + claimed) & 0xFFFFFFFF, b"WAVE", b"fmt ", 16)
    return riff + struct.pack("<HHIIHH4sI", kind, 1, 16000, 16000 * width, width, bits, b"data", claimed) + samples


def test_an_absurd_claimed_length_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "liar.wav"
    path.write_bytes(_wav(b"\x01\x02" * 8000, 0xFFFFFFF0))
    tracemalloc.start()
    assert AudioSource(path).samples == 8000
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_truncated_file_gives_what_it_has(tmp_path: Path, write_sound: WriteSound, tone: Tone) -> None:
    path = write_sound(tmp_path / "a.mp3", tone(4)[None], 16000, "libmp3lame")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 1.5 < AudioSource(path).seconds < 2.5


def test_damage_inside_a_file_is_skipped_with_a_warning(
    tmp_path: Path, write_sound: WriteSound, tone: Tone, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_sound(tmp_path / "a.m4a", tone(4)[None], 16000, "aac")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = b"\xff\xf1" * 1500
    path.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        assert 1 < AudioSource(path).seconds < 4
    assert "damaged packets skipped" in caplog.text


def test_a_name_with_a_colon_is_a_file_and_not_a_protocol(
    tmp_path: Path, write_sound: WriteSound, tone: Tone
) -> None:
    path = write_sound(tmp_path / "a.wav", tone(0.1)[None]).rename(tmp_path / "http:a b%20é.wav")
    assert AudioSource(path).samples == 1600


def test_bad_files_are_refused_with_their_name_and_a_reason(
    tmp_path: Path, write_sound: WriteSound, tone: Tone
) -> None:
    (tmp_path / "zero.wav").touch()
    (tmp_path / "text.wav").write_text("this is not a sound file, it is a text file\n" * 50)
    (tmp_path / "no_data.wav").write_bytes(_wav(b"", 0))
    (tmp_path / "nan.wav").write_bytes(_wav(struct.pack("<800f", *[0.1] * 799, float("nan")), 3200, 32, 3))
    (tmp_path / "inf.wav").write_bytes(_wav(struct.pack("<800f", *[0.1] * 799, float("inf")), 3200, 32, 3))
    write_sound(tmp_path / "one.wav", tone(1)[None, :1])
    write_sound(tmp_path / "short.wav", tone(1)[None, :399])
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://localhost:1/a.ts\n")
    cases = {
        "missing.wav": "no such file",
        "zero.wav": "empty",
        "text.wav": "not readable|no sound|no audio",
        "no_data.wav": "no sound|not readable",
        "nan.wav": "NaN",
        "inf.wav": "NaN",
        "one.wav": r"0\.1 ms, at least 25 ms",
        "short.wav": r"24\.9 ms, at least 25 ms",
        "list.m3u8": "not readable|no sound|no audio",
        ".": "not a file",
    }
    for name, message in cases.items():
        with pytest.raises(MediaError, match=message) as caught:
            load_waveform(tmp_path / name)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
        with pytest.raises(MediaError, match=message):
            _ = AudioSource(tmp_path / name).seconds


def test_a_picture_has_no_audio_stream(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="no audio stream"):
        AudioSource(tmp_path / "a.png")


def test_an_unknown_stream_number_is_refused(tmp_path: Path, write_sound: WriteSound, tone: Tone) -> None:
    with pytest.raises(MediaError, match="has 1 audio streams, number 3"):
        AudioSource(write_sound(tmp_path / "a.wav", tone(0.1)[None]), stream=3)


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(0), torch.zeros(2, 2, 2), torch.tensor([0.0, float("nan")]), torch.tensor([[float("inf")]])],
)
def test_unusable_waveforms_are_refused(bad: Tensor) -> None:
    with pytest.raises(MediaError):
        WaveformSource(bad)


def test_a_sound_may_be_a_path_a_waveform_or_a_source(tmp_path: Path, write_sound: WriteSound, tone: Tone) -> None:
    path = write_sound(tmp_path / "a.wav", tone(0.5)[None], 16000, "pcm_f32le")
    source = as_source(str(path))
    assert as_source(source) is source
    assert source.seconds == as_source(tone(0.5)).seconds == 0.5


@pytest.mark.parametrize("channels, expected", [(1, 1), (2, 2), (6, 2)])
def test_sound_to_be_heard_keeps_its_rate_and_at_most_two_channels(
    channels: int, expected: int, tmp_path: Path, write_sound: WriteSound
) -> None:
    sound = 0.1 * torch.randn(channels, 22050)
    waveform, rate = load_sound(write_sound(tmp_path / "a.wav", sound, rate=22050, codec="pcm_f32le"))
    assert rate == 22050 and waveform.shape == (expected, 22050) and waveform.dtype == torch.float32
    if channels <= 2:
        assert torch.equal(waveform, sound)


def test_sound_to_be_heard_needs_sound(tmp_path: Path, write_sound: WriteSound) -> None:
    with pytest.raises(MediaError, match="ms"):
        load_sound(write_sound(tmp_path / "a.wav", torch.zeros(1, 100)))


def _many_channels(path: Path, channels: int, rate: int, samples: int = 4000) -> Path:
    data = b"".join(struct.pack("<h", 1000 * (i % channels == channels - 1)) for i in range(channels * samples))
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt \x10\0\0\0" + form + b"data"
        + struct.pack("<I", len(data)) + data
    )  # fmt: skip
    return path


@pytest.mark.parametrize("channels", [7, 8, 9, 64])
def test_sound_of_many_channels_is_their_mean(tmp_path: Path, channels: int) -> None:
    """PyAV crashes on 8 planes and more, 7.1 included."""
    found = load_waveform(_many_channels(tmp_path / "a.wav", channels, 16_000))
    assert len(found) == 4000
    torch.testing.assert_close(found, torch.full((4000,), 1000 / 32768 / channels), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("rate", [1, 900, 2**31 - 1])
def test_rates_that_would_take_hours_are_refused(tmp_path: Path, rate: int) -> None:
    path = _many_channels(tmp_path / "a.wav", 1, 16_000)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 24, rate)
    path.write_bytes(data)
    for function in (AudioSource, load_sound):
        with pytest.raises(MediaError, match=f"claims {rate} samples a second"):
            function(path)


def test_more_channels_than_can_be_mixed_are_refused(tmp_path: Path) -> None:
    path = _many_channels(tmp_path / "a.wav", 65, 16_000, samples=400)
    for function in (AudioSource, load_sound):
        with pytest.raises(MediaError, match="claims 65 channels"):
            function(path)
