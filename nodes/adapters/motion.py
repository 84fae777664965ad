"""Given movement out of what ComfyUI's wires carry: numbers in lists, and VIDEO."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...letstalk_core.errors import ConfigError, FaceNotFoundError
from ...letstalk_core.media.filmed_motion import READ, read_motion
from ...letstalk_core.networks.motion_channels import MOVEMENTS
from ...letstalk_core.sampling.motion_curves import MotionCurves, check_emotion
from .progress import check_interrupt
from .video_input import retimed_frames

FPS = 25.0


def make_motion(
    curves: Mapping[str, Any], video: Any, emotion: str, strength: float, back_and_forth: bool
) -> MotionCurves:
    """Curves by channel, what a VIDEO shows for the others, and an emotion. Raises: ConfigError, MediaError."""
    given = {name: _numbers(name, value) for name, value in curves.items() if value is not None}
    motion = MotionCurves(given, mirrored=back_and_forth)
    if video is not None:
        film = MotionCurves.of_frames(_filmed(video), READ, mirrored=True)
        # Curves of another length would be read at the film's turning points, so both are brought to one length.
        most = max([len(film.columns[READ[0]]), *map(len, given.values())])
        columns = {name: _held(film, name, most) for name in READ}
        columns |= {name: _held(motion, name, most) for name in given}
        motion = MotionCurves(columns, mirrored=True)
    return replace(motion, added=check_emotion(emotion, strength))


def _held(motion: MotionCurves, name: str, count: int) -> Tensor:
    values = motion.rows(name, 0, count)
    assert values is not None
    return torch.from_numpy(values).float()


def _numbers(name: str, value: Any) -> Tensor:
    """A number, a list of them, a tensor, or a list of lists, as (f,) float32."""
    numbers = list(_flat(value))
    if not numbers or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers):
        raise ConfigError(f"{name}: needs a number, or a list of numbers, one a frame")
    return torch.tensor(numbers, dtype=torch.float32)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Tensor):
        value = value.flatten().tolist()
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _filmed(video: Any) -> Tensor:
    def frames() -> Iterator[Tensor]:
        for frame in retimed_frames(video, FPS):
            check_interrupt()
            yield frame

    motion = read_motion(frames())
    if not bool(motion.confidence.any()):
        raise FaceNotFoundError("video: no face in any frame; use one of a face seen from the front")
    return torch.stack([motion.rows[:, MOVEMENTS.index(name)] for name in READ], 1)
