from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from letstalk_core.media.video.writer import VideoWriter
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.transformer.dit import LetsTalkDiT

WriteSound = Callable[..., Path]
TINY = {"hidden_size": 32, "depth": 2, "num_heads": 2, "in_channels": 4, "linear_head_dim": 16, "mlp_ratio": 2.0}
TRAINED = {"audio_token_dim": 12, "grid_size": (4, 4), "clip_frames": 5}


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


def write_video(path: Path, frames: Tensor, fps: Any = 25, **options: Any) -> Path:
    """Encode frames (t, h, w, 3) in parts."""
    with VideoWriter(path, fps, (frames.shape[1], frames.shape[2]), **options) as writer:
        for part in frames.split(7):
            writer.write(part)
    return path


@pytest.fixture
def write_sound() -> WriteSound:
    return _write_sound


@pytest.fixture
def make_dit() -> Callable[..., LetsTalkDiT]:
    """A tiny denoiser whose every weight is random, so that no branch is switched off."""

    def make(**changes: Any) -> LetsTalkDiT:
        torch.manual_seed(0)
        dit = LetsTalkDiT(DiTConfig(**{**TINY, **TRAINED, **changes}))
        for parameter in dit.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        return dit.requires_grad_(True)

    return make


@pytest.fixture
def make_inputs() -> Callable[..., dict[str, Tensor]]:
    """Inputs for it: keywords of `forward`."""

    def make(
        *, batch: int = 2, frames: int = 5, memory: int = 2, grid: tuple[int, int] = (4, 4), seed: int = 0
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        return {
            "x": noise(batch, frames, 4, *grid),
            "timestep": torch.rand(batch, generator=generator) * 999,
            "portrait": noise(batch, 4, *grid),
            "memory": noise(batch, memory, 4, *grid),
            "audio": noise(batch, frames, 3, 12),
        }

    return make
