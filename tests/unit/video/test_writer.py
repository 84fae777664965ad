from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from letstalk_core.errors import ConfigError, LetsTalkError, MediaError, OutputError
from letstalk_core.media.audio.decode import AudioSource, WaveformSource, load_waveform
from letstalk_core.media.video.writer import PngSequenceWriter, VideoWriter, available_encoder
from tests.unit.conftest import write_video

Frames = Callable[..., Tensor]
WriteSound = Callable[..., Path]


def decode(path: Path) -> tuple[list[Any], Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return list(container.decode(stream)), stream


def bt709_to_rgb(frame: Any) -> Tensor:
    """The standard's own formula, on full-size chroma by repetition: (h, w, 3) float."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        planes.append(torch.from_numpy(rows.copy()).float())
    y, cb, cr = planes
    y = (y - 16) / 219
    cb, cr = (((c - 128) / 224).repeat_interleave(2, 0).repeat_interleave(2, 1) for c in (cb, cr))
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return 255 * torch.stack([red, green, blue], -1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_every_frame_arrives_in_order_at_its_time(tmp_path: Path, frames: Frames, suffix: str) -> None:
    written = frames(30)
    found, stream = decode(write_video(tmp_path / f"a{suffix}", written))
    assert len(found) == 30 and stream.average_rate == 25
    assert [round(f.time * 25) for f in found] == list(range(30))
    blue = torch.stack([bt709_to_rgb(f)[..., 2].mean() for f in found])
    assert (blue - written[..., 2].float().mean((1, 2))).abs().max() < 5


def test_the_same_frames_always_give_the_same_file(tmp_path: Path, frames: Frames) -> None:
    written = frames(34)
    files = {write_video(tmp_path / "a.mp4", written).read_bytes() for _ in range(6)}
    assert len(files) == 1


def test_colours_are_bt709_limited_as_the_tags_say(tmp_path: Path) -> None:
    others = [[255, 255, 0], [255, 255, 255], [0, 0, 0], [200, 150, 120], [90, 60, 50]]
    colours = torch.cat([255 * torch.eye(3), torch.tensor(others)])
    image = colours.to(torch.uint8).repeat_interleave(32, 0)[None].expand(64, -1, -1)
    found, stream = decode(
        write_video(tmp_path / "a.mp4", image[None].expand(3, -1, -1, -1), encoder_options={"crf": "1"})
    )
    context = stream.codec_context
    assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
    assert context.pix_fmt == "yuv420p"
    rgb = bt709_to_rgb(found[0])
    for i, colour in enumerate(colours):  # the middle of each bar, away from shared chroma
        assert (rgb[20:40, 32 * i + 10 : 32 * i + 22].mean((0, 1)) - colour).abs().max() < 4, colour


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 65), (17, 33)])
def test_odd_sizes_repeat_their_last_line(tmp_path: Path, frames: Frames, height: int, width: int) -> None:
    written = frames(3, height, width)
    found, _ = decode(write_video(tmp_path / "a.mp4", written))
    assert (found[0].height, found[0].width) == (height + height % 2, width + width % 2)
    assert (bt709_to_rgb(found[0])[:height, :width] - written[0]).abs().mean() < 6


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (25.0, Fraction(25)),
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (12.5, Fraction(25, 2)),
    ],
)
def test_frame_rates_stay_exact(tmp_path: Path, frames: Frames, fps: float, expected: Fraction) -> None:
    _, stream = decode(write_video(tmp_path / "a.mp4", frames(5), fps))
    assert stream.average_rate == expected


def sine(seconds: float, rate: int, channels: int = 1) -> Tensor:
    time = torch.arange(round(seconds * rate)) / rate
    return torch.stack([0.5 * torch.sin(6.283 * 300 * (i + 1) * time) for i in range(channels)])


@pytest.mark.parametrize(
    ("given", "kept"),  # samples a second, channels
    [
        ((44100, 2), (44100, 2)),
        ((48000, 1), (48000, 1)),
        ((16000, 1), (48000, 1)),
        ((22050, 1), (44100, 1)),
        ((48000, 6), (48000, 2)),
    ],
)
def test_sound_keeps_its_quality_and_ends_with_the_video(
    tmp_path: Path, frames: Frames, write_sound: WriteSound, given: tuple[int, int], kept: tuple[int, int]
) -> None:
    sound = write_sound(tmp_path / "a.wav", sine(3.0, *given), given[0])
    source = AudioSource(write_video(tmp_path / "a.mp4", frames(40), audio=sound))
    assert (source.source_rate, source.channels) == kept
    assert 1.6 <= source.seconds < 1.6 + 1024 / kept[0] + 1e-3


def test_shorter_sound_is_followed_by_silence(tmp_path: Path, frames: Frames, write_sound: WriteSound) -> None:
    sound = write_sound(tmp_path / "a.wav", sine(0.4, 16000), 16000)
    found = load_waveform(write_video(tmp_path / "a.mp4", frames(25), audio=sound))
    assert len(found) >= 16000
    assert found[:5000].std() > 0.2 and found[8000:].abs().max() < 0.01


def test_the_chosen_audio_stream_is_the_one_written(tmp_path: Path, frames: Frames) -> None:
    both = tmp_path / "both.mkv"
    with av.open(str(both), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(2)]
        for stream, loudness in zip(streams, (0.0, 0.5), strict=True):
            samples = (loudness * 32767 * sine(1.0, 16000)).to(torch.int16).numpy()
            frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    for number, loud in ((0, False), (1, True)):
        found = load_waveform(write_video(tmp_path / f"{number}.mp4", frames(20), audio=AudioSource(both, number)))
        assert (found.std() > 0.1) == loud


@pytest.mark.parametrize(
    "source", [(sine(1.0, 22050)[0], 22050), (sine(1.0, 48000, 3), 48000), WaveformSource(sine(1.0, 16000)[0])]
)
def test_sound_may_be_a_waveform(tmp_path: Path, frames: Frames, source: Any) -> None:
    found = load_waveform(write_video(tmp_path / "a.mp4", frames(20), audio=source))
    assert 12800 <= len(found) < 14000 and found[:12000].std() > 0.1


def test_sound_and_pictures_are_interleaved(tmp_path: Path, frames: Frames) -> None:
    path = write_video(tmp_path / "a.mp4", frames(100), audio=(sine(4.0, 48000), 48000))
    with av.open(str(path)) as container:
        order = [(p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.pts is not None]
    last = {"audio": 0.0, "video": 0.0}
    for kind, seconds in order:
        last[kind] = max(seconds, last[kind])
        assert abs(last["audio"] - last["video"]) < 2.5


def test_the_file_says_that_it_is_generated_and_keeps_metadata(tmp_path: Path, frames: Frames) -> None:
    metadata = {"title": "é", "letstalk": {"seed": 3}, "nothing": None}
    for suffix in (".mp4", ".mkv"):
        with av.open(str(write_video(tmp_path / f"a{suffix}", frames(2), metadata=metadata))) as container:
            tags = {k.lower(): v for k, v in container.metadata.items()}
        assert tags["comment"].startswith("AI-generated video") and tags["title"] == "é"
        assert "trainedAlgorithmicMedia" in tags["digital_source_type"]
        assert json.loads(tags["letstalk"]) == {"seed": 3} and "nothing" not in tags
    own = {"comment": "{}", "description": "An AI-generated video."}  # a comment of the caller is kept
    with av.open(str(write_video(tmp_path / "new" / "a.mp4", frames(2), metadata=own))) as container:
        assert container.metadata["comment"] == "{}"


def test_nothing_has_the_final_name_before_close_or_after_abort(tmp_path: Path, frames: Frames) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("older result")
    writer = VideoWriter(path, 25, (48, 64))
    writer.write(frames(5))
    assert path.read_text() == "older result"
    writer.abort()
    writer.abort()
    assert path.read_text() == "older result" and list(tmp_path.iterdir()) == [path]
    write_video(path, frames(5))
    assert len(decode(path)[0]) == 5 and list(tmp_path.iterdir()) == [path]


def test_closing_early_leaves_a_playable_file_with_matching_sound(tmp_path: Path, frames: Frames) -> None:
    path = tmp_path / "a.mp4"
    writer = VideoWriter(path, 25, (48, 64), audio=(sine(60.0, 16000), 16000))
    writer.write(frames(11))
    writer.close(partial=True)
    writer.close()
    assert len(decode(path)[0]) == 11
    assert AudioSource(path).seconds == pytest.approx(0.44, abs=0.03)
    with pytest.raises(OutputError, match="is closed"):
        writer.write(frames(1))


def test_ctrl_c_in_a_with_block_keeps_the_frames_and_an_error_drops_them(tmp_path: Path, frames: Frames) -> None:
    for error, kept in ((KeyboardInterrupt, True), (RuntimeError, False)):
        path = tmp_path / f"{error.__name__}.mp4"
        with pytest.raises(error), VideoWriter(path, 25, (48, 64)) as writer:
            writer.write(frames(3))
            raise error
        assert path.exists() is kept
    assert len(list(tmp_path.iterdir())) == 1


def test_a_video_without_frames_is_an_error_unless_partial(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no frame"):
        VideoWriter(tmp_path / "a.mp4", 25, (48, 64)).close()
    VideoWriter(tmp_path / "a.mp4", 25, (48, 64)).close(partial=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("limit", [20_000, 100_000])
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    import resource

    torch.manual_seed(0)
    noise = torch.randint(0, 256, (40, 64, 64, 3), dtype=torch.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OutputError, match="free disk space"):
            write_video(tmp_path / "a.mp4", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_impossible_outputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir.mp4").mkdir()
    cases: list[tuple[type[LetsTalkError], str, dict[str, Any]]] = [
        (ConfigError, "must end in", {"path": tmp_path / "a.avi"}),
        (ConfigError, "must end in", {"path": tmp_path / "a"}),
        (OutputError, "is a folder", {"path": tmp_path / "dir.mp4"}),
        (OutputError, "cannot be written", {"path": tmp_path / "file" / "a.mp4"}),
        (OutputError, "cannot be written", {"path": Path("/proc/letstalk/a.mp4")}),
        (OutputError, "cannot be written", {"path": tmp_path / ("x" * 300 + ".mp4")}),
        (ConfigError, "fps=0", {"fps": 0}),
        (ConfigError, "fps=nan", {"fps": float("nan")}),
        (ConfigError, "sides must be", {"size": (8, 64)}),
        (ConfigError, "sides must be", {"size": (64, 20000)}),
        (ConfigError, "not in this build", {"encoder": "no_such_encoder"}),
        (MediaError, "no such file", {"audio": tmp_path / "missing.wav"}),
        (MediaError, "needs", {"audio": (torch.zeros(0), 16000)}),
    ]
    for kind, message, change in cases:
        values: dict[str, Any] = {"path": tmp_path / "a.mp4", "fps": 25, "size": (48, 64), **change}
        with pytest.raises(kind, match=message) as caught:
            VideoWriter(**values)
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dir.mp4", "file"]


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(1, 48, 64, 3),
        torch.zeros(48, 64, 3, dtype=torch.uint8),
        torch.zeros(1, 48, 64, 4, dtype=torch.uint8),
        torch.zeros(1, 64, 48, 3, dtype=torch.uint8),
    ],
)
def test_frames_of_another_shape_or_type_are_refused(tmp_path: Path, bad: Tensor) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 25, (48, 64))
    with pytest.raises(ConfigError):
        writer.write(bad)
    writer.abort()


def test_another_encoder_takes_over_where_x264_is_missing(
    tmp_path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available_encoder() == "libx264"
    monkeypatch.setattr("av.codecs_available", {"mpeg4"})
    assert len(decode(write_video(tmp_path / "a.mp4", frames(5)))[0]) == 5
    assert available_encoder() == "mpeg4"


def test_pictures_are_written_one_by_one_and_whole(tmp_path: Path, frames: Frames) -> None:
    written = frames(4)
    with PngSequenceWriter(tmp_path / "png", start=2) as writer:
        writer.write(written[:1])
        writer.write(written[1:])
    files = sorted((tmp_path / "png").iterdir())
    assert [f.name for f in files] == [f"frame_{i:06d}.png" for i in range(2, 6)]
    for file, frame in zip(files, written, strict=True):
        with Image.open(file) as image:
            assert torch.equal(torch.from_numpy(np.array(image)), frame)
            assert "AI-generated" in image.text["comment"]  # type: ignore[attr-defined]


def test_dropped_pictures_vanish_and_stale_ones_are_mentioned(
    tmp_path: Path, frames: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    long = PngSequenceWriter(tmp_path)
    long.write(frames(4))
    long.close()
    short = PngSequenceWriter(tmp_path)
    short.write(frames(2))
    with caplog.at_level(logging.WARNING):
        short.close()
    assert "frame_000002.png" in caplog.text
    long.abort()
    assert list(tmp_path.iterdir()) == []


def test_pictures_need_a_usable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        PngSequenceWriter(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be made"):
        PngSequenceWriter(tmp_path / "file" / "sub")
