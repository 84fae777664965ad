from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

WriteSound = Callable[..., Path]


def _write_sound(path: Path, waveform: Tensor, rate: int) -> Path:
    """A 16-bit WAV of (channels, samples)."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[waveform.shape[0]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        samples = (waveform.T.reshape(1, -1).numpy() * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "s16", layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def write_sound() -> WriteSound:
    return _write_sound


@pytest.fixture
def frames() -> Callable[..., Tensor]:
    """Smooth moving colours: (t, h, w, 3) uint8."""

    def make(count: int, height: int = 48, width: int = 64) -> Tensor:
        t = torch.arange(count)[:, None, None]
        y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
        red, green, blue = 40 + 3 * x + 0 * y, 60 + 2 * y + 0 * x, 128 + 100 * torch.sin(t / 5.0) + 0 * x + 0 * y
        channels = torch.broadcast_tensors(red + 0 * t, green + 0 * t, blue.round())
        return torch.stack(channels, -1).clamp(0, 255).to(torch.uint8)

    return make
