"""The channels of the motion of a talking face, and their scales.

Motion is all that moves. Movement, a key of files, options and inputs, is that which does not follow the sound: of
head, lids, gaze, brows and smile. A network may be told it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError

MOVEMENTS = ("smile", "blink", "gaze_x", "gaze_y", "brow", "shift_x", "shift_y", "roll", "yaw", "pitch", "scale")
LIPS = ("jaw", "wide", "round", "teeth")  # 0..1; they follow the sound, and no network is told of them
POSE = {"shift_x": 0.0, "shift_y": 0.0, "roll": 0.0, "yaw": 0.0, "pitch": 0.0, "scale": 1.0}  # at rest
MOTION = (*LIPS, *MOVEMENTS)  # all that moves in a talking face; scale a factor
# Parts of their whole range; shifts in image widths, roll in radians, scale a share of the size; blink 1 is shut.
ABSOLUTE = ("blink",)
SWAY = {"yaw": 0.4, "pitch": 0.25, "roll": 0.04, "shift_x": 0.02, "shift_y": 0.012, "scale": 0.01, "brow": 0.3}
GAZE_LIMIT = 0.35
UNITS = {**SWAY, "smile": 0.4, "blink": 1.0, "gaze_x": GAZE_LIMIT, "gaze_y": GAZE_LIMIT}


def units(names: Sequence[str]) -> tuple[float, ...]:
    """Usual size of each channel, by which networks see numbers near 1. Raises: ConfigError."""
    unknown = [name for name in names if name not in MOVEMENTS]
    if unknown:
        raise ConfigError(f"movement={unknown}: known are {list(MOVEMENTS)}")
    return tuple(UNITS[name] for name in names)


def relative(rows: Tensor, portrait: Tensor, names: Sequence[str]) -> Tensor:
    """Measured motion (..., channels) as networks are conditioned on it, given that of the portrait."""
    kept = torch.tensor([name in ABSOLUTE for name in names], dtype=torch.bool)
    return torch.where(kept, rows, rows - portrait)
