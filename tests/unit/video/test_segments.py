"""Videos in segments: safe pieces, the same file in the end. Sinks in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError, MediaError, OutputError
from letstalk_core.media.audio.decode import load_waveform
from letstalk_core.media.video.segments import SO_FAR, SegmentedVideo, segment_path
from letstalk_core.media.video.tee import Tee
from letstalk_core.media.video.threaded import ThreadedSink
from letstalk_core.media.video.writer import VideoWriter
from letstalk_core.protocols import ResumableSink

Frames = Callable[..., Tensor]
SIZE = (48, 64)


def pictures(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


def sound() -> tuple[Tensor, int]:
    noise = torch.randn(1, 48_000, generator=torch.Generator().manual_seed(0)) * 0.1
    return torch.nn.functional.avg_pool1d(noise, 9, 1, 4), 16_000


def segmented(folder: Path, name: str = "v.mp4", **options: object) -> SegmentedVideo:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return SegmentedVideo(folder / name, 25, SIZE, work, 10, audio=sound(), **options)  # type: ignore[arg-type]


def test_the_joined_file_is_like_one_that_was_written_at_once(tmp_path: Path, frames: Frames) -> None:
    written = frames(34)
    with segmented(tmp_path, metadata={"title": "x"}) as video:
        for part in written.split(7):
            video.write(part)
    with VideoWriter(tmp_path / "w.mp4", 25, SIZE, audio=sound(), metadata={"title": "x"}) as writer:
        writer.write(written)
    with av.open(str(tmp_path / "v.mp4")) as ours, av.open(str(tmp_path / "w.mp4")) as other:
        a, b = ours.streams.video[0], other.streams.video[0]
        assert (a.frames, a.average_rate, a.duration, a.time_base) == (34, b.average_rate, b.duration, b.time_base)
        assert a.codec_context.colorspace == b.codec_context.colorspace == 1
        assert ours.metadata["title"] == "x" and ours.metadata["comment"] == other.metadata["comment"]
        assert [f.pts for f in ours.decode(a)] == [f.pts for f in other.decode(b)]
    assert torch.equal(load_waveform(tmp_path / "v.mp4"), load_waveform(tmp_path / "w.mp4"))


@pytest.mark.parametrize("stop", [3, 10, 25, 34])
def test_a_continued_video_has_the_frames_of_an_unbroken_one(tmp_path: Path, frames: Frames, stop: int) -> None:
    written = frames(34)
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    with segmented(tmp_path / "whole") as whole:
        whole.write(written)
    first = segmented(tmp_path / "broken", frames=34)
    first.write(written[:stop])
    first.abort()
    second = segmented(tmp_path / "broken", frames=34)
    assert second.held == (34 if stop == 34 else stop // 10 * 10)
    second.write(written[second.held :])
    second.close()
    assert pictures(tmp_path / "broken" / "v.mp4") == pictures(tmp_path / "whole" / "v.mp4")


def test_the_file_so_far_plays_what_is_finished_with_its_sound(tmp_path: Path, frames: Frames) -> None:
    video = segmented(tmp_path)
    video.write(frames(65))
    so_far = tmp_path / "work" / SO_FAR
    assert len(pictures(so_far)) >= 60 - 10 - 13
    assert len(load_waveform(so_far)) >= 30 / 25 * 16_000
    video.abort()
    assert pictures(so_far)[:60] == pictures(tmp_path / "work" / SO_FAR)[:60] and not (tmp_path / "v.mp4").exists()
    again = segmented(tmp_path)
    assert again.held == 60
    again.write(frames(1))
    assert len(pictures(so_far)) >= 60 - 13  # the earlier file's place is taken by one as long
    again.abort()


def test_stopping_early_gives_all_frames_and_keeps_only_full_segments(tmp_path: Path, frames: Frames) -> None:
    video = segmented(tmp_path)
    video.write(frames(25))
    video.close(partial=True)
    assert len(pictures(tmp_path / "v.mp4")) == 25
    assert segmented(tmp_path).held == 20


def test_a_damaged_segment_and_those_behind_it_count_for_nothing(tmp_path: Path, frames: Frames) -> None:
    with segmented(tmp_path) as video:
        video.write(frames(30))
    path = segment_path(tmp_path / "work", 1)
    path.write_bytes(path.read_bytes()[:50])
    assert segmented(tmp_path).held == 10


def test_earlier_segments_can_be_written_again(tmp_path: Path, frames: Frames) -> None:
    written = frames(30)
    with segmented(tmp_path) as video:
        video.write(written)
    before = pictures(tmp_path / "v.mp4")
    again = segmented(tmp_path)
    with pytest.raises(ConfigError, match="cannot go on at frame 15"):
        again.resume_at(15)
    again.resume_at(10)
    again.write(written[10:])
    again.close()
    assert pictures(tmp_path / "v.mp4") == before


def test_sinks_around_it_know_what_is_safe(tmp_path: Path, frames: Frames) -> None:
    first = segmented(tmp_path)
    first.write(frames(20))
    first.abort()

    class Plain:
        def write(self, frames: Tensor) -> None: ...
        def close(self, partial: bool = False) -> None: ...
        def abort(self) -> None: ...

    alone = ThreadedSink(Tee([segmented(tmp_path)]))
    beside = ThreadedSink(Tee([segmented(tmp_path), Plain()]))
    assert isinstance(alone, ResumableSink) and (alone.held, beside.held) == (20, 0)
    for sink in (alone, beside):
        sink.resume_at(sink.held)
        sink.abort()


def test_what_cannot_work_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "dir.mp4").mkdir()
    with pytest.raises(ConfigError, match="must end in"):
        SegmentedVideo(tmp_path / "a.avi", 25, SIZE, tmp_path, 10)
    with pytest.raises(OutputError, match="is a folder"):
        SegmentedVideo(tmp_path / "dir.mp4", 25, SIZE, tmp_path, 10)
    with pytest.raises(MediaError, match="no such file"):
        SegmentedVideo(tmp_path / "a.mp4", 25, SIZE, tmp_path, 10, audio=tmp_path / "missing.wav")
    with pytest.raises(OutputError, match="no frame"):
        SegmentedVideo(tmp_path / "a.mp4", 25, SIZE, tmp_path, 10).close()


def test_two_videos_in_one_folder_whose_names_begin_alike_do_not_meet(tmp_path: Path, frames: Frames) -> None:
    """Both are joined at the same moment; at most the end of a long name tells them apart."""
    (tmp_path / "other").mkdir()
    other = SegmentedVideo(tmp_path / f"{'v' * 90}-2.mp4", 25, SIZE, tmp_path / "other", 10)
    other.write(frames(13))
    video = segmented(tmp_path, f"{'v' * 90}-1.mp4", seal=lambda path: other.close())
    video.write(frames(34))
    video.close()
    assert [len(pictures(tmp_path / f"{'v' * 90}-{n}.mp4")) for n in (1, 2)] == [34, 13]


def test_what_a_killed_join_left_goes_and_is_not_written_through(tmp_path: Path, frames: Frames) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".v.joining.tmp.mp4").symlink_to(tmp_path / "precious")
    (tmp_path / ".v.mp4.4242-0123abcd.tmp.mp4").symlink_to(tmp_path / "precious")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / f".{SO_FAR}.tmp.mp4").symlink_to(tmp_path / "precious")
    with segmented(tmp_path) as video:
        video.write(frames(12))
    assert (tmp_path / "precious").read_text() == "precious"
    assert len(pictures(tmp_path / "v.mp4")) == 12 and not list(tmp_path.glob(".v.mp4.*"))


def test_a_video_that_does_not_hold_its_frames_is_not_taken_for_whole(tmp_path: Path, frames: Frames) -> None:
    def cut(path: Path) -> None:
        path.write_bytes(
            path.read_bytes()[: path.stat().st_size // 2]
        )  # the index is in front and still claims every frame

    video = segmented(tmp_path, seal=cut)
    video.write(frames(34))
    with pytest.raises(OutputError, match="holds|read back"):
        video.close()
    assert not (tmp_path / "v.mp4").exists() and len(list((tmp_path / "work").glob("video-*.mp4"))) == 4


# a sink in a thread of its own


class Recorder:
    """A sink that remembers, and that waits or fails when told to."""

    def __init__(self, fail_at: int | None = None, gate: threading.Event | None = None) -> None:
        self.seen: list[int] = []
        self.state = "open"
        self.fail_at, self.gate = fail_at, gate

    def write(self, frames: Tensor) -> None:
        if self.gate is not None:
            assert self.gate.wait(5)
        if len(self.seen) == self.fail_at:
            raise ConfigError("bad frame")
        self.seen.append(int(frames[0, 0, 0, 0]))

    def close(self, partial: bool = False) -> None:
        self.state = "partial" if partial else "closed"

    def abort(self) -> None:
        self.state = "aborted"


def batch(value: int) -> Tensor:
    return torch.full((1, 1, 1, 3), value, dtype=torch.uint8)


@pytest.mark.parametrize("partial", [False, True])
def test_every_batch_arrives_in_order_before_close_returns(partial: bool) -> None:
    inner = Recorder()
    sink = ThreadedSink(inner, capacity=2)
    for i in range(50):
        sink.write(batch(i))
    sink.close(partial=partial)
    assert inner.seen == list(range(50)) and inner.state == ("partial" if partial else "closed")


def test_frames_may_be_reused_by_the_caller() -> None:
    gate = threading.Event()
    inner = Recorder(gate=gate)
    sink = ThreadedSink(inner)
    frames = batch(7)
    sink.write(frames)
    frames.zero_()
    gate.set()
    sink.close()
    assert inner.seen == [7]


def test_an_error_reaches_the_caller_and_drops_the_result() -> None:
    inner = Recorder(fail_at=3)
    sink = ThreadedSink(inner, capacity=1)
    with pytest.raises(ConfigError, match="bad frame"):
        for i in range(100):
            sink.write(batch(i))
    assert inner.state == "aborted"


def test_an_error_in_the_last_batch_is_raised_by_close() -> None:
    inner = Recorder(fail_at=0)
    sink = ThreadedSink(inner)
    sink.write(batch(0))
    with pytest.raises(ConfigError, match="bad frame"):
        sink.close()
    assert inner.state == "aborted"


def test_abort_does_not_wait_for_the_queue() -> None:
    gate = threading.Event()
    inner = Recorder(gate=gate)
    sink = ThreadedSink(inner, capacity=10)
    for i in range(8):
        sink.write(batch(i))
    threading.Timer(0.05, gate.set).start()
    sink.abort()
    assert inner.state == "aborted" and len(inner.seen) <= 1
