"""Reads finished videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np


@dataclass
class Video:
    """frames (n, h, w, 3) uint8; samples (channels, n) of the sound."""

    frames: np.ndarray
    fps: float
    samples: np.ndarray
    sound_seconds: float


def read_video(path: Path) -> Video:
    """Every frame and sample. A file without sound has no samples."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        fps = float(stream.average_rate or 0)
    with av.open(str(path)) as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)] if container.streams.audio else []
        rate = container.streams.audio[0].rate if parts else 1
    samples = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), np.float32)
    return Video(frames, fps, samples, samples.shape[1] / rate)
