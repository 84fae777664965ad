"""Ctrl-C again and again: the next run works, and nothing is left of the others."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.passes import Passes, footprint, resident
from letstalk_core.cli.run_generate import Interrupt
from letstalk_core.generate.talking_portrait import GenerateSettings, Progress, Summary, TalkingPortrait
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.media.video.threaded import ThreadedSink
from letstalk_core.media.video.writer import VideoWriter
from letstalk_core.networks.load import ModelBundle, load_bundle

from .command import Cli, video_frames

CYCLES = 50
SETTINGS = GenerateSettings(steps=2, seed=3)
PORTRAIT = torch.arange(32 * 32 * 3).remainder(253).to(torch.uint8).view(32, 32, 3)
SPEECH = 0.3 * torch.sin(torch.arange(19_200) / 20)  # 1.2 s: 30 frames, 8 clips
MIB = 2**20


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C does what Python does by default; a shell's background jobs begin with it ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def bundle(tiny_bundle: Path) -> ModelBundle:
    """One of its own: Ctrl-C hangs on its passes."""
    return load_bundle(tiny_bundle)


def ctrl_c(bundle: ModelBundle) -> Passes:
    """Sends a true SIGINT in a chosen pass of the network."""
    return Passes(lambda: signal.raise_signal(signal.SIGINT), bundle.dit)


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
    with Interrupt(Line()) as interrupt:
        try:
            return TalkingPortrait(bundle).generate(
                PORTRAIT, SPEECH, sink, SETTINGS, progress=interrupt.progress, work=work
            )
        except KeyboardInterrupt:
            return None


def test_fifty_interrupted_runs_leave_nothing_and_spoil_nothing(bundle: ModelBundle, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.mp4", tmp_path / "part.mp4"
    generate(bundle, whole)
    interrupting = ctrl_c(bundle)
    interrupting.arm(0)
    generate(bundle, part)
    total = interrupting.passes

    def cancel(cycle: int) -> None:
        interrupting.arm(1 + cycle % (total - 1))
        summary = generate(bundle, part, WorkFolder(tmp_path / "work") if cycle % 2 else None)
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        assert summary is None or (summary.interrupted and summary.frames < summary.total_frames)
        assert interrupting.after == 0, "another step was begun"

    for cycle in range(5):
        cancel(cycle)
    before, memory = footprint(), resident()
    for cycle in range(CYCLES):
        cancel(cycle)
    assert footprint() == before
    assert resident() - memory < 64 * MIB
    assert {path.name for path in tmp_path.iterdir()} == {"whole.mp4", "part.mp4"}
    interrupting.arm(0)
    generate(bundle, part)
    assert torch.equal(torch.cat(WRITTEN["part.mp4"]), torch.cat(WRITTEN["whole.mp4"]))
    assert video_frames(part) == video_frames(whole) == 30


def test_a_run_that_is_stopped_in_every_clip_ends_up_as_one_that_was_not(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    work, path = WorkFolder(tmp_path / "work"), tmp_path / "stopped.mp4"
    generate(bundle, tmp_path / "whole.mp4")
    interrupting = ctrl_c(bundle)
    done = []
    for _ in range(20):
        interrupting.arm(4)  # in the second clip that is new
        summary = generate(bundle, path, work)
        done.append(0 if summary is None else summary.frames)
        if summary is not None and not summary.interrupted:
            break
    assert done == sorted(done) and done[-1] == 30 and len(done) > 4
    assert torch.equal(torch.cat(WRITTEN["stopped.mp4"]), torch.cat(WRITTEN["whole.mp4"]))
    assert video_frames(path) == 30
    assert {p.name for p in tmp_path.iterdir()} == {"whole.mp4", "stopped.mp4"}


@pytest.mark.parametrize(("pressed", "code"), [(True, 130), (False, 1)])
def test_a_ctrl_c_that_a_library_turns_into_its_own_error_is_a_stop(
    pressed: bool, code: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        try:
            if pressed:
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        raise TypeError("argument 'data': wrong type")

    monkeypatch.setattr("letstalk_core.cli.run_generate.load_bundle", load)
    assert cli(0.1) == code
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    said = cli.capsys.readouterr().err
    assert (said == "stopped\n") == pressed and ("Traceback" in said) != pressed
