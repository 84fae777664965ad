"""Ctrl-C again and again: the next run works, and nothing is left of the others."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from letstalk_core.cli.generate import _Interrupt
from letstalk_core.models import ModelBundle, load_bundle
from letstalk_core.pipeline import GenerateSettings, Progress, Summary, TalkingPortrait
from letstalk_core.resume import WorkFolder
from letstalk_core.video.threaded import ThreadedSink
from letstalk_core.video.writer import VideoWriter

CYCLES = 50
SETTINGS = GenerateSettings(steps=2, seed=3)
PORTRAIT = torch.arange(32 * 32 * 3).remainder(253).to(torch.uint8).view(32, 32, 3)
SPEECH = 0.3 * torch.sin(torch.arange(19_200) / 20)  # 1.2 s: 30 frames, 8 clips
MIB = 2**20


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> ModelBundle:
    return load_bundle(tiny_bundle)


class CtrlC:
    """Sends a true SIGINT in a chosen pass of the network, and counts the passes after it."""

    def __init__(self, bundle: ModelBundle) -> None:
        self.at, self.passes, self.after = 0, 0, 0
        bundle.dit.register_forward_pre_hook(self._pass)

    def arm(self, at: int) -> None:
        self.at, self.passes, self.after = at, 0, 0

    def _pass(self, module: Any, inputs: Any) -> None:
        self.passes += 1
        if self.at and self.passes > self.at:
            self.after += 1
        if self.passes == self.at:
            signal.raise_signal(signal.SIGINT)


class Line:
    """Shows nothing."""

    def __call__(self, now: Progress) -> None: ...

    def end(self) -> None: ...


WRITTEN: dict[str, list[Tensor]] = {}  # frames of each video as the encoder, which may vary, was given them


class Recorder(VideoWriter):
    def write(self, frames: Tensor) -> None:
        WRITTEN[self.path.name].append(frames.clone())
        super().write(frames)


def generate(bundle: ModelBundle, path: Path, work: WorkFolder | None = None) -> Summary | None:
    """One run as the command line does it; None when Ctrl-C came before the first frame."""
    WRITTEN[path.name] = []
    sink = ThreadedSink(Recorder(path, 25, (32, 32)))
    with _Interrupt(Line()) as interrupt:
        try:
            return TalkingPortrait(bundle).generate(
                PORTRAIT, SPEECH, sink, SETTINGS, progress=interrupt.progress, work=work
            )
        except KeyboardInterrupt:
            return None


def frames(path: Path) -> Tensor:
    from letstalk_core.video.reader import read_video

    return torch.stack(list(read_video(path, fps=None)))


def footprint() -> dict[str, int]:
    gc.collect()
    found = {"threads": threading.active_count()}
    found["tensors"] = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
    if sys.platform.startswith("linux"):
        found["open files"] = len(list(Path("/proc/self/fd").iterdir()))
    return found


def memory() -> int:
    """Resident bytes; 0 where this system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def test_fifty_interrupted_runs_leave_nothing_and_spoil_nothing(bundle: ModelBundle, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.mp4", tmp_path / "part.mp4"
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    try:
        generate(bundle, whole)
        ctrl_c = CtrlC(bundle)
        ctrl_c.arm(0)
        generate(bundle, part)
        total = ctrl_c.passes

        def cancel(cycle: int) -> None:
            ctrl_c.arm(1 + cycle % (total - 1))
            summary = generate(bundle, part)
            assert summary is None or (summary.interrupted and summary.frames < summary.total_frames)
            assert ctrl_c.after == 0, "another step was begun"

        for cycle in range(5):
            cancel(cycle)
        before, resident = footprint(), memory()
        for cycle in range(CYCLES):
            cancel(cycle)
        assert footprint() == before
        assert memory() - resident < 64 * MIB
        assert {path.name for path in tmp_path.iterdir()} == {"whole.mp4", "part.mp4"}
        ctrl_c.arm(0)
        generate(bundle, part)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert torch.equal(torch.cat(WRITTEN["part.mp4"]), torch.cat(WRITTEN["whole.mp4"]))
    assert len(frames(part)) == len(frames(whole)) == 30


def test_a_run_that_is_stopped_in_every_clip_ends_up_as_one_that_was_not(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    work, path = WorkFolder(tmp_path / "work"), tmp_path / "stopped.mp4"
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        generate(bundle, tmp_path / "whole.mp4")
        ctrl_c = CtrlC(bundle)
        done = []
        for _ in range(20):
            ctrl_c.arm(4)  # in the second clip that is new
            summary = generate(bundle, path, work)
            done.append(0 if summary is None else summary.frames)
            if summary is not None and not summary.interrupted:
                break
    finally:
        signal.signal(signal.SIGINT, handler)
    assert done == sorted(done) and done[-1] == 30 and len(done) > 4
    assert torch.equal(torch.cat(WRITTEN["stopped.mp4"]), torch.cat(WRITTEN["whole.mp4"]))
    assert len(frames(path)) == 30
    assert {p.name for p in tmp_path.iterdir()} == {"whole.mp4", "stopped.mp4"}
