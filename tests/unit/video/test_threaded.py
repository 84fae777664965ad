from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.video.threaded import ThreadedSink


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
