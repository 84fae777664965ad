"""Videos of one folder and what they should look like in another, matched by name."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError, LetsTalkError, MediaError
from letstalk_core.media.audio.decode import load_video_sound
from letstalk_core.media.portrait.crop import SHAPE_TOLERANCE, resize
from letstalk_core.media.video.reader import read_video

from ..face_curves import PointReader
from ..film_suites import find_films
from ..metrics import Array


@dataclass(eq=False)
class Clip:
    """One video: frames (t, h, w, 3) uint8 at 25 fps; points (t, 478, 2) and sound are read when wanted."""

    path: Path
    frames: Tensor
    reader: PointReader

    @functools.cached_property
    def points(self) -> Array:
        return self.reader(self.frames)

    @functools.cached_property
    def found(self) -> NDArray[np.bool_]:
        """In which frames there is a face (t,)."""
        return np.asarray(np.isfinite(self.points).all((1, 2)))

    @functools.cached_property
    def waveform(self) -> Tensor | None:
        """16 kHz samples (n,), from the first frame on; None for a video without sound."""
        try:
            return load_video_sound(self.path)[: len(self.frames) * 640]
        except LetsTalkError:
            return None


@dataclass(eq=False)
class Pair:
    """What was generated, and the truth for it: as many frames, of the same size."""

    name: str
    made: Clip
    truth: Clip

    @classmethod
    def read(cls, name: str, made: Path, truth: Path, reader: PointReader, seconds: float) -> Pair:
        """The first seconds that both have. Raises: MediaError for videos of different shape."""
        clips = []
        for path in (made, truth):
            frames = list(read_video(path, fps=25.0, max_frames=max(1, round(seconds * 25))))
            clips.append(torch.stack(frames))
        a, b = clips
        count, size = min(len(a), len(b)), (a.shape[1], a.shape[2])
        if abs(size[1] / size[0] / (b.shape[2] / b.shape[1]) - 1) > SHAPE_TOLERANCE:
            raise MediaError(
                f"{truth}: has {b.shape[2]}x{b.shape[1]} pixels, and {made} {size[1]}x{size[0]}; crop the truth as"
                " the videos are"
            )
        return cls(name, Clip(made, a[:count], reader), Clip(truth, resize(b[:count], size, "bilinear"), reader))


def find_pairs(videos: Path, truth: Path) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """(name, video, truth) by equal names without endings, and the names that only one folder has.

    Raises: MediaError for a folder without videos, ConfigError for names that stand twice, or no pair.
    """
    tables = []
    for folder in (videos, truth):
        table: dict[str, Path] = {}
        for path in find_films(folder):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in table:
                raise ConfigError(f"{path}: {table[name].name} has the same name; keep one of them")
            table[name] = path
        tables.append(table)
    made, true = tables
    both = sorted(made.keys() & true.keys())
    if not both:
        raise ConfigError(f"{videos} and {truth} share no names, such as {min(made)}; name pairs alike")
    return [(name, made[name], true[name]) for name in both], sorted(made.keys() ^ true.keys())
