"""Movement that a user gives for a run: a table of curves, a film of somebody who moves, an emotion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..errors import ConfigError, FaceNotFoundError, MediaError
from ..media.filmed_motion import READ, read_motion
from ..media.video.reader import read_video
from ..networks.motion_channels import MOVEMENTS
from ..sampling.motion_curves import EMOTIONS, MotionCurves, check_emotion

TABLES = (".csv", ".json")


def load_motion(path: Path | None, fps: float, emotion: dict[str, float] | None = None) -> MotionCurves:
    """Curves for a video of `fps` from a CSV or JSON table, or from a film.

    A film's movement runs back and forth behind its end, and the channels that it does not show stay drawn.
    Raises: MediaError, ConfigError, FaceNotFoundError.
    """
    curves = MotionCurves()
    if path is not None and path.suffix.lower() in TABLES:
        curves = MotionCurves.load(path, fps)
    elif path is not None:
        if not path.is_file():
            raise MediaError(f"{path}: does not exist; give a CSV or JSON table, or a film")
        motion = read_motion(read_video(path, fps=fps))
        if not bool(motion.confidence.any()):
            raise FaceNotFoundError(f"{path}: no face in any frame; use a film of a face seen from the front")
        columns = torch.stack([motion.rows[:, MOVEMENTS.index(name)] for name in READ], 1)
        curves = MotionCurves.of_frames(columns, READ, mirrored=True)
    return replace(curves, added=emotion or {})


def parse_emotion(text: str) -> dict[str, float]:
    """ "happy" or "happy:0.5" as what is added to channels. Raises: ConfigError."""
    name, _, strength = text.partition(":")
    try:
        return check_emotion(name.strip(), float(strength) if strength else 1.0)
    except ValueError:
        raise ConfigError(
            f"emotion {text!r}: needs a name, or a name and a strength such as happy:0.5; known are"
            f" {', '.join(EMOTIONS)}"
        ) from None
