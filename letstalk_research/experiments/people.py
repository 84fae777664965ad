"""Held-out people who speak: portrait and sound as the denoiser gets them, and the reader of each one's face."""

from __future__ import annotations

import dataclasses
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.files import atomic_path
from letstalk_core.media.audio.features import encode_audio
from letstalk_core.pixels import from_unit, to_unit

from ..evaluation.face_reader import FaceReader, face_truth
from ..evaluation.metrics import calm_cells, static_pixels
from ..evaluation.speech_clip import fit_reader
from ..evaluation.trials import Trial, draw_trial

__all__ = ["FPS", "Codec", "Person", "meet"]

FPS = 25.0
BATCH = 8  # frames through the autoencoder at once

Array = NDArray[np.float64]


class Codec:
    """The autoencoder in the dtype and layout in which the machine runs it fastest. Latents are in model space."""

    def __init__(self, autoencoder: Any, *, dtype: torch.dtype) -> None:
        self.scale: float = autoencoder.config.scaling_factor
        self.device = next(autoencoder.parameters()).device
        self.dtype = dtype
        self._net = autoencoder.to(dtype=dtype, memory_format=torch.channels_last)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """(t, h, w, 3) uint8 -> (t, c, h, w) float32."""
        parts = [self._net.encode(self._place(to_unit(part.to(self.device)))) for part in frames.split(BATCH)]
        return torch.cat(parts).float() * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(t, c, h, w) -> (t, h, w, 3) uint8, on the CPU."""
        parts = (latents / self.scale).split(BATCH)
        return torch.cat([from_unit(self._net.decode(self._place(part)).float()).cpu() for part in parts])

    def _place(self, x: Tensor) -> Tensor:
        return x.to(self.device, self.dtype).to(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class Person:
    """One speaker. truth: columns FACE (t, 11). states: (t, layers, d) of the audio encoder."""

    trial: Trial
    reader: FaceReader
    still: Tensor  # (h, w) pixels that no pose changes
    calm: Tensor  # cells whose colour hardly depends on the pose
    portrait: Tensor  # (c, h, w) latent
    states: Tensor
    truth: Array


def meet(
    index: int,
    *,
    seed: int,
    frames: int,
    size: int,
    poses: int,
    codec: Codec,
    audio_encoder: Any,
    folder: Path,
    like: Person | None = None,
) -> Person:
    """Person `index` of the held-out ones, speaking for `frames`; `folder` keeps what they say from run to run.

    `like` is the same person with another length of speech, whose reader then serves again.
    Raises: DependencyError without espeak-ng.
    """
    trial = _kept(draw_trial(seed, index, frames=frames, fps=FPS, size=size), folder / f"{index}-{frames}.npz")
    if like is None:
        reader = fit_reader(trial, poses)
        still, calm = static_pixels(reader.drawings), calm_cells(reader.drawings)
        reader = dataclasses.replace(reader, drawings=reader.drawings[:0])  # many people fit in memory without
        portrait = codec.encode(trial.portrait[None])[0]
    else:
        reader, still, calm, portrait = like.reader, like.still, like.calm, like.portrait
    with torch.no_grad():
        states = torch.cat([s.float() for s in encode_audio(audio_encoder, trial.waveform, FPS)])
    return Person(trial, reader, still, calm, portrait, states, face_truth(trial.motion))


def _kept(trial: Trial, path: Path) -> Trial:
    """The trial with the sound and the movement of an earlier run: espeak-ng does not repeat bit for bit."""
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as data:
                waveform = torch.from_numpy(data["waveform"])
                return dataclasses.replace(trial, waveform=waveform, motion=data["motion"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            path.unlink()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, waveform=trial.waveform.numpy(), motion=trial.motion)
    return trial
