"""Time: seconds, audio samples and video frames; the window of audio states that belongs to a frame.

Source: docs/model.md, Audio. Frame i lasts from i / fps to (i + 1) / fps seconds.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...errors import ConfigError

SAMPLE_RATE = 16_000  # Hz, of everything the audio encoder hears
SAMPLES_PER_FRAME = SAMPLE_RATE // 25  # of training data, whose videos all have 25 frames a second


def _check_fps(fps: float) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps={fps} must be a positive number of frames per second, such as 25")


def frame_count(seconds: float, fps: float) -> int:
    """Frames that a sound of this length needs: the nearest whole number, at least 1. Raises: ConfigError."""
    _check_fps(fps)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ConfigError(f"seconds={seconds} must be a length of time, 0 or more")
    return max(1, round(seconds * fps))


def frame_at(seconds: float, fps: float) -> int:
    """The frame shown at a moment."""
    _check_fps(fps)
    return math.floor(seconds * fps + 1e-6)  # i / fps * fps may fall just below i


def frame_positions(first: int, count: int, frames: int, steps: int) -> Tensor:
    """Where frames first..first+count-1 of `frames` lie among `steps` encoder steps: (count,) float64, 0..steps-1.

    The ends of both sequences coincide, as in `interpolate(align_corners=True)`, but positions stay exact in
    recordings of hours, where float32 does not.
    """
    scale = (steps - 1) / (frames - 1) if frames > 1 else 0.0
    return torch.arange(first, first + count, dtype=torch.float64) * scale


def resample_states(states: Tensor, frames: int) -> Tensor:
    """Linear resampling in time of finished states: (n, layers, d) at any rate -> (frames, layers, d)."""
    if states.ndim != 3 or states.shape[0] < 1 or frames < 1:
        raise ConfigError(
            f"cannot resample states of shape {list(states.shape)} to {frames} frames: needs (n, layers, d)"
        )
    flat = rearrange(states, "n l d -> 1 (l d) n")
    flat = F.interpolate(flat.float(), size=frames, mode="linear", align_corners=True).to(states.dtype)
    return rearrange(flat, "1 (l d) f -> f l d", l=states.shape[1])


def window_states(states: Tensor, first: int, count: int, window: int) -> Tensor:
    """Windows of frames first..first+count-1: (n, layers, d) -> (count, window, layers, d).

    The window of frame i holds frames i - window//2 .. i + window//2; frames outside 0..n-1 repeat the nearest
    end, so that a last clip may reach beyond the sound. Raises: ConfigError.
    """
    if states.ndim != 3 or states.shape[0] < 1:
        raise ConfigError(
            f"audio states have shape {list(states.shape)}; needs (frames, layers, d), 1 frame or more"
        )
    if count < 1 or window < 1 or window % 2 == 0:
        raise ConfigError(f"count={count} must be at least 1 and window={window} odd and positive")
    centres = torch.arange(first, first + count, device=states.device)
    offsets = torch.arange(window, device=states.device) - window // 2
    return states[(centres[:, None] + offsets).clamp(0, states.shape[0] - 1)]
