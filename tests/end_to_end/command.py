"""`letstalk generate` as tests call it."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from letstalk_core.cli.__main__ import main
from letstalk_core.cli.progress import ProgressLine
from letstalk_core.generate.talking_portrait import GenerateSettings, TalkingPortrait
from letstalk_core.networks.load import ModelBundle
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.sampling.clip import Blend, Clip

from .media import read_frames

Wav = Callable[..., Path]
FAST = ["--steps", "1", "--device", "cpu", "--no-crop"]  # the tests' pictures have no faces


class Cli:
    """`letstalk generate` of a small portrait and a tone, or of what is given, into the empty folder `out`."""

    def __init__(self, portrait: Path, make_wav: Wav, out: Path, bundle: Path, capsys: Any) -> None:
        self.portrait, self.make_wav, self.out, self.bundle, self.capsys = portrait, make_wav, out, bundle, capsys

    def __call__(
        self, sound: float | Path, *options: str, fast: Any = FAST, video: bool = True, **files: Path
    ) -> int:
        sound = self.make_wav(sound) if isinstance(sound, float) else sound
        portrait, model = files.get("portrait", self.portrait), files.get("model", self.bundle)
        output = ["-o", str(self.out / "v.mp4")] if video else []
        return main(["generate", str(portrait), str(sound), *output, "--model", str(model), *fast, *options])

    def error(self, *words: str) -> None:
        """Stderr is one line that says "error:" and the words, beside notes; stdout is empty."""
        captured = self.capsys.readouterr()
        lines = [line for line in captured.err.strip().splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), captured.err
        assert all(word in lines[0] for word in words), captured.err
        assert captured.out == ""

    def left(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())


def video_frames(path: Path) -> int:
    return len(read_frames(path))


def at_clip(clip: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something once, when so many clips are done."""
    done: list[int] = []

    def progress(self: ProgressLine, now: Any) -> None:
        if now.clip == clip and now.step == 0 and not done:
            done.append(clip)
            act()

    monkeypatch.setattr(ProgressLine, "__call__", progress)


def stop_after(clips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when so many clips are done."""
    at_clip(clips, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)


def end_at(clip: int, error: BaseException) -> Callable[[Any], None]:
    """Progress of a run in this process that ends it when so many clips are done."""

    def progress(now: Any) -> None:
        if now.clip == clip:
            raise error

    return progress


def spoiled_sampler(bundle: ModelBundle, bad: Callable[[int, Clip], bool]) -> Callable[..., Any]:
    """`make_sampler` of a model's own sampler, whose clip is NaN where `bad(call, clip)`; calls count from 1."""

    def make(settings: GenerateSettings, on_step: Any) -> Any:
        own = TalkingPortrait(bundle).solver_sampler(settings, on_step)
        calls = itertools.count(1)

        def sample(noise: Tensor, conditions: Conditions, clip: Clip, blend: Blend | None = None) -> Tensor:
            result = own(noise, conditions, clip, blend)
            return result * float("nan") if bad(next(calls), clip) else result

        return sample

    return make
