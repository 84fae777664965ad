from __future__ import annotations

import logging
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.media.audio.decode import AudioSource, WaveformSource, as_source, load_sound, load_waveform

Tone = Callable[..., Tensor]
WriteSound = Callable[..., Path]


@pytest.fixture
def write_tone(tmp_path: Path, write_sound: WriteSound, tone: Tone) -> WriteSound:
    """write_tone(name, seconds, rate, codec) writes the tone of so many seconds."""

    def write(name: str, seconds: float, rate: int = 16000, codec: str = "pcm_s16le") -> Path:
        return write_sound(tmp_path / name, tone(seconds, rate)[None], rate, codec)

    return write


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
    write_tone: WriteSound, tone: Tone, name: str, codec: str, delay: int, error: float
) -> None:
    written = tone(1.5)
    found = load_waveform(write_tone(name, 1.5, 48000 if codec == "libopus" else 16000, codec))
    assert found.dtype == torch.float32 and abs(len(found) - len(written)) <= delay
    quiet = written - found[: len(written)] if len(found) >= len(written) else written[: len(found)] - found
    if codec != "libopus":  # its source was made, with other noise, at 48 kHz
        assert quiet.square().mean().sqrt() < error


def test_a_stream_of_blocks_equals_one_resampling_of_the_whole(write_tone: WriteSound, tone: Tone) -> None:
    blocks = list(AudioSource(write_tone("a.wav", 3.2, 44100, "pcm_f32le")))
    found, expected = torch.cat(blocks), WaveformSource(tone(3.2, 44100), 44100).waveform
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
    for seconds in (10, 60):
        path = write_sound(tmp_path / f"{seconds}.wav", torch.zeros(1, seconds * 16000), 16000)
        tracemalloc.start()  # sees NumPy's memory, through which every block passes
        largest = max(block.numel() for block in AudioSource(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert largest < 3 * 16000
    assert peaks[1] < 1.5 * peaks[0] + 100_000


def wav(
    samples: bytes, claimed: int | None = None, bits: int = 16, kind: int = 1, channels: int = 1, rate: int = 16000
) -> bytes:
    """A WAV file, byte by byte; kind: 1 for whole numbers, 3 for floats. `claimed`: its length as it says."""
    size, width = len(samples) if claimed is None else claimed, channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * width & 0xFFFFFFFF, width, bits)
    riff = struct.pack("<4sI4s4sI", b"RIFF", (36 + size) & 0xFFFFFFFF, b"WAVE", b"fmt ", 16)
    return riff + form + struct.pack("<4sI", b"data", size) + samples


def test_an_absurd_claimed_length_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "liar.wav"
    path.write_bytes(wav(b"\x01\x02" * 8000, claimed=0xFFFFFFF0))
    tracemalloc.start()
    assert AudioSource(path).samples == 8000
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_truncated_file_gives_what_it_has(write_tone: WriteSound) -> None:
    path = write_tone("a.mp3", 4, codec="libmp3lame")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 1.5 < AudioSource(path).seconds < 2.5


def test_damage_is_skipped_with_a_warning(write_tone: WriteSound, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tone("a.m4a", 4, codec="aac")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = b"\xff\xf1" * 1500
    path.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        assert 1 < AudioSource(path).seconds < 4
    assert "damaged packets skipped" in caplog.text


def test_a_name_with_a_colon_is_a_file_and_not_a_protocol(write_tone: WriteSound, tmp_path: Path) -> None:
    assert AudioSource(write_tone("a.wav", 0.1).rename(tmp_path / "http:a b%20é.wav")).samples == 1600


def test_bad_files_are_refused_by_name_and_reason(tmp_path: Path, write_sound: WriteSound, tone: Tone) -> None:
    (tmp_path / "zero.wav").touch()
    (tmp_path / "text.wav").write_text("this is not a sound file, it is a text file\n" * 50)
    (tmp_path / "no_data.wav").write_bytes(wav(b""))
    (tmp_path / "nan.wav").write_bytes(wav(struct.pack("<800f", *[0.1] * 799, float("nan")), bits=32, kind=3))
    (tmp_path / "inf.wav").write_bytes(wav(struct.pack("<800f", *[0.1] * 799, float("inf")), bits=32, kind=3))
    write_sound(tmp_path / "one.wav", tone(1)[None, :1])
    write_sound(tmp_path / "short.wav", tone(1)[None, :399])
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://localhost:1/a.ts\n")
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
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
        "picture.png": "no audio stream",
        ".": "not a file",
    }
    for name, message in cases.items():
        with pytest.raises(MediaError, match=message) as caught:
            load_waveform(tmp_path / name)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
        with pytest.raises(MediaError, match=message):
            _ = AudioSource(tmp_path / name).seconds
        if "NaN" not in message:
            with pytest.raises(MediaError, match=message):
                load_sound(tmp_path / name)


def test_an_unknown_stream_number_is_refused(write_tone: WriteSound) -> None:
    with pytest.raises(MediaError, match="has 1 audio streams, number 3"):
        AudioSource(write_tone("a.wav", 0.1), stream=3)


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(0), torch.zeros(2, 2, 2), torch.tensor([0.0, float("nan")]), torch.tensor([[float("inf")]])],
)
def test_unusable_waveforms_are_refused(bad: Tensor) -> None:
    with pytest.raises(MediaError):
        WaveformSource(bad)


def test_a_sound_may_be_a_path_a_waveform_or_a_source(write_tone: WriteSound, tone: Tone) -> None:
    source = as_source(str(write_tone("a.wav", 0.5)))
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


def last_channel(channels: int, samples: int) -> bytes:
    """Sound in the last of the channels alone."""
    return struct.pack(f"<{channels}h", *[0] * (channels - 1), 1000) * samples


@pytest.mark.parametrize("channels", [6, 7, 8, 9, 64])
def test_sound_of_many_channels_is_their_mean(tmp_path: Path, channels: int) -> None:
    """PyAV crashes on 8 planes and more, 7.1 included."""
    (tmp_path / "a.wav").write_bytes(wav(last_channel(channels, 4000), channels=channels))
    found = load_waveform(tmp_path / "a.wav")
    assert len(found) == 4000
    torch.testing.assert_close(found, torch.full((4000,), 1000 / 32768 / channels), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("channels", "rate", "claim"),
    [*((1, rate, f"{rate} samples a second") for rate in (1, 900, 2**31 - 1)), (65, 16_000, "65 channels")],
)
def test_claims_that_would_take_hours_are_refused(tmp_path: Path, channels: int, rate: int, claim: str) -> None:
    (tmp_path / "a.wav").write_bytes(wav(last_channel(channels, 400), channels=channels, rate=rate))
    for function in (AudioSource, load_sound):
        with pytest.raises(MediaError, match=f"claims {claim}"):
            function(tmp_path / "a.wav")
