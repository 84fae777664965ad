from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.media.audio.decode import load_video_sound
from letstalk_core.media.video.reader import probe, read_video, rgb_frame
from tests.unit.conftest import write_video

Frames = Callable[..., Tensor]
WriteSound = Callable[..., Path]


def counter(count: int) -> Tensor:
    """Frame i has brightness 4 i: readable after lossy coding."""
    values = 4 * torch.arange(count, dtype=torch.uint8)
    return values[:, None, None, None].expand(-1, 32, 32, 3)


def numbers(path: Path, fps: float | None) -> list[int]:
    return [round(frame.float().mean().item() / 4) for frame in read_video(path, fps)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_comes_back_as_it_was_written(tmp_path: Path, frames: Frames, suffix: str) -> None:
    written = frames(30)
    found = torch.stack(list(read_video(write_video(tmp_path / f"a{suffix}", written))))
    assert found.shape == written.shape and found.dtype == torch.uint8
    assert (found.float() - written).abs().mean() < 6  # chroma at half size, crf 18


def test_reading_makes_a_video_neither_darker_nor_greener() -> None:
    y, cb, cr = np.random.default_rng(0).integers((60, 110, 110), (200, 146, 146), (200, 3)).T
    light, blue, red = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224  # BT.709, limited range
    rgb = np.stack([light + 1.5748 * red, light - 0.1873 * blue - 0.4681 * red, light + 1.8556 * blue], -1)
    errors = []
    for i, colour in enumerate(255 * rgb):
        planes = [np.full((8, 16), y[i]), np.full((2, 16), cb[i]), np.full((2, 16), cr[i])]
        frame = av.VideoFrame.from_ndarray(np.concatenate(planes).astype(np.uint8), "yuv420p")
        frame.colorspace, frame.color_range = 1, 1
        errors.append(rgb_frame(frame).float().mean((0, 1)).numpy() - colour)
    assert abs(np.mean(errors, axis=0)).max() < 0.3


def test_probe_tells_what_the_header_says(tmp_path: Path, frames: Frames) -> None:
    info = probe(write_video(tmp_path / "a.mp4", frames(30), 30, audio=(torch.zeros(16000), 16000)))
    assert (info.height, info.width, info.fps, info.frames, info.codec) == (48, 64, 30.0, 30, "h264")
    assert info.seconds == pytest.approx(1.0) and info.audio_streams == 1


@pytest.mark.parametrize("fps", [25.0, None])
def test_frames_at_the_wanted_rate_come_once_each(tmp_path: Path, fps: float | None) -> None:
    assert numbers(write_video(tmp_path / "a.mp4", counter(60)), fps) == list(range(60))


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=st.sampled_from([10.0, 24.0, 29.97, 50.0, 60.0]), count=st.integers(1, 50))
def test_other_rates_are_converted_by_the_nearest_frame(tmp_path: Path, source: float, count: int) -> None:
    found = numbers(write_video(tmp_path / "a.mp4", counter(count), source), 25.0)
    assert abs(len(found) - max(1, count / source * 25)) < 0.501
    for k, number in enumerate(found):
        assert abs(number - min(k / 25 * source, count - 1)) <= 0.51
    assert found == sorted(found)


def test_max_frames_ends_the_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", counter(20))
    assert len(list(read_video(path, max_frames=7))) == 7


def test_the_rotation_mark_of_phones_is_applied(tmp_path: Path) -> None:
    image = torch.zeros(2, 32, 64, 3, dtype=torch.uint8)
    image[:, :16, :16, 0] = 255  # red in the top left corner
    path = write_video(tmp_path / "a.mp4", image)
    upright = b"".join(n.to_bytes(4, "big") for n in (65536, 0, 0, 0, 65536, 0, 0, 0, 0x40000000))
    clockwise = b"".join(
        (n & 0xFFFFFFFF).to_bytes(4, "big") for n in (0, 65536, 0, -65536, 0, 0, 0, 0, 0x40000000)
    )
    data = path.read_bytes()
    track = data.index(b"tkhd")
    path.write_bytes(data[:track] + data[track:].replace(upright, clockwise, 1))
    found = next(read_video(path))
    assert found.shape == (64, 32, 3)
    assert found[8, 24, 0] > 200 and found[8, 8, 0] < 50  # red in the top right corner


@pytest.mark.parametrize(("space", "matrix", "span"), [(5, 5, 1), (2, 5, 1), (1, 1, 2), (6, 5, 2), (9, 9, 1)])
def test_colours_follow_the_tags_of_the_file(tmp_path: Path, space: int, matrix: int, span: int) -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 150, 120]])
    image = colours.to(torch.uint8).repeat_interleave(32, 0)[None].expand(64, -1, -1).contiguous()
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, span
        frame = av.VideoFrame.from_ndarray(image.numpy(), "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=matrix, src_color_range=2, dst_color_range=span)
        frame.pts, frame.colorspace, frame.color_range = 0, space, span
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = next(read_video(tmp_path / "a.mkv")).float()
    for i, colour in enumerate(colours):
        assert (found[20:40, 32 * i + 10 : 32 * i + 22].mean((0, 1)) - colour).abs().max() < 4


def test_the_sound_of_a_video_starts_with_its_picture(tmp_path: Path, frames: Frames) -> None:
    torch.manual_seed(0)
    noise = torch.nn.functional.avg_pool1d(torch.randn(1, 16000), 9, 1, 4)[0]
    path = write_video(tmp_path / "a.mp4", frames(25), audio=(noise, 16000))
    found = load_video_sound(path)[100:14000]
    errors = [(found - noise[100 + k : 14000 + k]).square().mean().item() for k in range(-3, 4)]
    assert errors.index(min(errors)) == 3


@pytest.mark.parametrize("late", ["video", "audio"])
def test_sound_that_starts_at_another_time_is_shifted(tmp_path: Path, frames: Frames, late: str) -> None:
    path = tmp_path / "a.mkv"
    click = torch.zeros(16000)
    click[8000:8100] = 0.9
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray((click[None] * 32767).to(torch.int16).numpy(), "s16", "mono")
        sound.sample_rate, sound.pts = 16000, 4000 if late == "audio" else 0
        container.mux(audio.encode(sound))
        for i, image in enumerate(frames(10)):
            frame = av.VideoFrame.from_ndarray(image.numpy(), "rgb24").reformat(format="yuv420p")
            frame.pts = i + (5 if late == "video" else 0)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    start = int(load_video_sound(path).abs().gt(0.5).nonzero()[0])
    expected = 12000 if late == "audio" else 8000 - 3200
    assert abs(start - expected) < 160


def test_memory_does_not_grow_with_length(tmp_path: Path, frames: Frames) -> None:
    peaks = []
    for count in (10, 60):
        path = write_video(tmp_path / "a.mp4", frames(count, 96, 96))
        tracemalloc.start()
        assert sum(1 for _ in read_video(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200_000


def test_a_truncated_video_gives_what_it_has(tmp_path: Path, frames: Frames) -> None:
    path = write_video(tmp_path / "a.mkv", frames(100, 96, 96))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 10 < len(list(read_video(path))) < 100


def test_unusable_files_and_settings_are_refused(tmp_path: Path, write_sound: WriteSound, frames: Frames) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "zero.mp4").touch()
    write_sound(tmp_path / "sound.wav", torch.zeros(1, 16000), 16000)
    cut = write_video(tmp_path / "cut.mp4", frames(10))
    cut.write_bytes(cut.read_bytes()[:200])
    cases = {
        "missing.mp4": "no such file",
        "text.mp4": "not readable|no video",
        "zero.mp4": "empty",
        "sound.wav": "no video stream",
        "cut.mp4": "not readable|no video",
        ".": "not a file",
    }
    for name, message in cases.items():
        for read in (lambda p: next(read_video(p)), probe, load_video_sound):
            with pytest.raises(MediaError, match=message) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)
    for fps in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="fps="):
            next(read_video(cut, fps))
    with pytest.raises(MediaError, match="no audio stream"):
        load_video_sound(write_video(tmp_path / "silent.mp4", frames(3)))


def test_time_stamps_far_ahead_are_not_filled_with_frames(tmp_path: Path) -> None:
    """A day between two frames would be two million copies of the first."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        for number, time in enumerate((0, 1, 2, 86_400 * 25, 86_400 * 25 + 1)):
            frame = av.VideoFrame.from_ndarray(counter(8)[number].numpy().copy(), format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(numbers(path, 25.0)) == 5
