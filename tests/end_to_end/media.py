"""Makes sound, and reads finished videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np


def tone(seconds: float) -> np.ndarray:
    """A tone that swells and fades, (n,) at 16 kHz."""
    i = np.arange(round(seconds * 16000))
    return np.float32(0.27 * np.sin(0.05 * i) * np.sin(0.0007 * i))


@dataclass
class Video:
    """frames (n, h, w, 3) uint8; samples (channels, n) of the sound, `rate` each second."""

    frames: np.ndarray
    fps: float
    samples: np.ndarray
    rate: int

    @property
    def sound_seconds(self) -> float:
        return float(self.samples.shape[1] / self.rate)


def read_frames(path: Path) -> np.ndarray:
    """Every frame, (n, h, w, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_video(path: Path) -> Video:
    """Every frame and sample. A file without sound has no samples."""
    with av.open(str(path)) as container:
        fps = float(container.streams.video[0].average_rate or 0)
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)] if container.streams.audio else []
        rate = container.streams.audio[0].rate if parts else 1
    samples = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), np.float32)
    return Video(read_frames(path), fps, samples, rate)


def read_sound(path: Path, rate: int) -> np.ndarray:
    """A sound file as (n,) at `rate`."""
    resampler = av.AudioResampler("flt", "mono", rate)
    with av.open(str(path)) as container:
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([part.to_ndarray()[0] for part in [*parts, *resampler.resample(None)]])


def sound_begins_at(samples: np.ndarray, recording: np.ndarray) -> int:
    """The sample of a recording (n,) at which a part of it (channels, k) begins: where they agree best."""
    part, size = samples.mean(axis=0), len(recording) + samples.shape[1]
    spectrum = np.fft.rfft(recording, size) * np.fft.rfft(part, size).conj()
    return int(np.fft.irfft(spectrum, size)[: len(recording)].argmax())
