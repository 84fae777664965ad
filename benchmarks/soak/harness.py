"""What scenarios share: where they work, the video they make, how results add up, and the list of them."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.soak.zygote import Zygote
from benchmarks.tiny import save_models, write_speech
from letstalk_core.media.video.segments import SO_FAR, segment_path


@dataclass
class Outcome:
    """What a round of a scenario found. Figures add up over rounds; those named "most …" keep their maximum and
    texts their last value. Without failures the scenario passed."""

    figures: dict[str, float | str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        for name, value in other.figures.items():
            known = self.figures.get(name)
            if isinstance(value, str) or known is None or isinstance(known, str):
                self.figures[name] = value
            else:
                self.figures[name] = max(known, value) if name.startswith("most ") else known + value
        self.failures += other.failures

    def count(self, name: str, by: float = 1) -> None:
        self.add(Outcome({name: by}))

    def check(self, good: bool, what: str) -> None:
        if not good:
            self.failures.append(what)


Scenario = Callable[["Soak"], Outcome]
SCENARIOS: dict[str, tuple[Scenario, bool]] = {}


def scenario(name: str, *, repeat: bool = True) -> Callable[[Scenario], Scenario]:
    """Register a function from a Soak to an Outcome. `repeat`: again and again while there is time."""

    def register(function: Scenario) -> Scenario:
        SCENARIOS[name] = (function, repeat)
        return function

    return register


@dataclass
class Soak:
    """One round: a folder of its own, random numbers, a zygote, and how much to do.

    `kills` a round, `seconds` of speech in the short runs, `long_minutes` in the long one.
    """

    folder: Path
    random: random.Random
    zygote: Zygote
    kills: int = 40
    seconds: float = 12.0
    long_minutes: float = 60.0

    @property
    def bundle(self) -> Path:
        """A model folder: networks so small that a minute of video takes seconds, 64 x 64 pixels."""
        folder = self.zygote.folder / "bundle"
        if not folder.exists():
            save_bundle(folder)
        return folder

    @property
    def portrait(self) -> Path:
        from PIL import Image

        path = self.folder / "portrait.png"
        if not path.exists():
            y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
            pixels = torch.stack([4 * x, 4 * y, 2 * (x + y)], -1).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(path)
        return path

    def speech(self, seconds: float | None = None) -> Path:
        path = self.folder / f"speech-{seconds or self.seconds:g}.wav"
        if not path.exists():
            write_speech(path, seconds or self.seconds)
        return path

    def generate(self, out: Path, *options: str, speech: Path | None = None) -> list[str]:
        """Arguments of a `letstalk generate` to `out`."""
        files = [str(self.portrait), str(speech or self.speech()), "-o", str(out), "--model", str(self.bundle)]
        fixed = ["--device", "cpu", "--steps", "1", "--seed", "5", "--threads", "1", "--no-crop"]
        return ["generate", *files, *fixed, *options]

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def save_bundle(folder: Path) -> None:
    """Random networks as a model folder."""
    from benchmarks.long_runs import tiny_bundle

    with torch.random.fork_rng():
        torch.manual_seed(0)
        bundle = tiny_bundle()
    temporary = folder.with_name(folder.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    models = (bundle.autoencoder, bundle.audio_encoder, bundle.audio_projection, bundle.dit)
    save_models(temporary, {model.config.kind: model for model in models})
    temporary.rename(folder)


def decoded(path: Path) -> int:
    """Frames that a player gets out of a file, up to where it is cut off."""
    import av

    count = 0
    with contextlib.suppress(av.error.InvalidDataError, av.error.EOFError), av.open(str(path)) as container:
        for _ in container.decode(video=0):
            count += 1
    return count


def frame_hashes(path: Path, sound: bool = False) -> list[str]:
    """A hash of each decoded frame, also of those of the sound if wished."""
    import av

    with av.open(str(path)) as container:
        frames = container.decode() if sound else container.decode(video=0)
        return [hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest() for frame in frames]


def frames_sha256(path: Path) -> str:
    """A hash of all decoded frames and sound."""
    return hashlib.sha256("".join(frame_hashes(path, sound=True)).encode()).hexdigest()


def safe_frames(work: Path, segment_frames: int) -> tuple[int, int]:
    """(frames in finished segments, frames that the file so far gives a player) of a run's work folder."""
    segments = 0
    while segment_path(work, segments).exists():
        segments += 1
    so_far = work / SO_FAR
    return segments * segment_frames, decoded(so_far) if segments and so_far.exists() else 0
