from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from torch import Tensor

WriteSound = Callable[..., Path]


def _write_sound(path: Path, waveform: Tensor, rate: int = 16000, codec: str = "pcm_s16le") -> Path:
    """Encode (channels, samples) with PyAV; the container follows from the name."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[waveform.shape[0]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        formats = [f.name for f in stream.codec_context.codec.audio_formats or []]
        name = next((f for f in ("fltp", "flt", "s16", "s16p") if f in formats), formats[0])
        resampler = av.AudioResampler(format=name, layout=layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform.numpy(), np.float32), "fltp", layout)
        frame.sample_rate = rate
        frame.pts = 0  # without it the start delay of lossy codecs is not written
        for converted in resampler.resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def write_sound() -> WriteSound:
    return _write_sound
