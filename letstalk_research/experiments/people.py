"""Held-out people, and what each variant is compared by: their short clips.

A person has portrait and sound as the denoiser gets them, and a reader of the own face.
"""

from __future__ import annotations

import dataclasses
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from letstalk_core.files import atomic_path
from letstalk_core.media.audio.alignment import window_states
from letstalk_core.media.audio.features import encode_audio
from letstalk_core.networks.load import load_model
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.pixels import from_unit, to_unit
from letstalk_core.sampling.clip import Clip, Guidance, SolverClipSampler, conditioned
from letstalk_core.sampling.denoisers import make_denoiser
from letstalk_core.sampling.long_video import generate_clips, plan_clips
from letstalk_core.sampling.memory_bank import MemoryBank, MemorySettings
from letstalk_core.sampling.schedules import default_shift, make_sigmas

from ..evaluation.demo_clips import true_movement, variance_over_seeds
from ..evaluation.face_reader import FACE, HEAD, LIPS, FaceReader, face_truth
from ..evaluation.metrics import Array, calm_cells, colour_error, correlation, gradient_energy, static_pixels
from ..evaluation.store import ClipResult
from ..evaluation.suite import fit_reader, looks
from ..evaluation.trials import Trial, draw_trial
from .runs import Trained

FPS = 25.0
BATCH = 8  # frames through the autoencoder at once
DATA_SEEDS = 32  # of the true movement
SHOWN = LIPS[:3]


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


@dataclass(eq=False)
class Speaker:
    """A trained denoiser that makes the people of a batch speak together.

    `memory_noise` is the sigma of the noise on remembered frames. `seconds` counts what sampling took,
    on a CPU in processor time, so that other work on the machine does not count.
    """

    trained: Trained
    steps: int
    solver: str = "euler"
    memory_noise: float = 0.0
    seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.dit: Any = load_model(self.trained.file, "dit")
        self.projection: Any = load_model(self.trained.file, "audio_projection")
        config = self.dit.config
        denoiser = make_denoiser(self.dit)
        self._sigmas = make_sigmas(denoiser.prediction, self.steps, default_shift(config))
        self._denoiser, self.config = denoiser, config

    def clips(self, people: Sequence[Person], frames: int, seed: int) -> Any:
        """Yield clean latents (people, k, c, h, w) clip by clip."""
        sampler = SolverClipSampler(self._denoiser, self.solver, self._sigmas, Guidance(), seed=seed)

        portrait = torch.stack([p.portrait for p in people])
        window, count = self.projection.config.window, self.config.clip_frames

        @torch.no_grad()
        def conditions(memory: Tensor, clip: Clip) -> Conditions:
            states = torch.stack([window_states(p.states, clip.first, count, window) for p in people])
            return Conditions(portrait=portrait, audio=self.projection(states), memory=memory)

        clips = generate_clips(
            conditioned(sampler, conditions),
            plan_clips(frames, count),
            portrait=portrait,
            bank=MemoryBank.for_model(
                self.config, settings=MemorySettings(noise_sigma=self.memory_noise), seed=seed
            ),
            clip_frames=self.config.clip_frames,
            seed=seed,
        )
        clock = time.perf_counter if next(self.dit.parameters()).is_cuda else time.process_time
        while True:
            begun = clock()
            with torch.no_grad():
                found = next(clips, None)
            self.seconds += clock() - begun
            if found is None:
                return
            yield found[1]


def measure_speech(
    speaker: Speaker, people: Sequence[Person], codec: Codec, *, every: int, noises: int
) -> ClipResult:
    """Let the people speak with several seeds of the noise and read every `every`th frame.

    Curves, one value a person, mean over the seeds of the noise: correlations of the lips with the truth and, as
    control, with the speech of the next person; error of what keeps still; head movement's variance over the
    seeds as a share of the data's. Metrics: seconds of sampling per second of video.
    """
    frames = len(people[0].truth)
    readings: list[list[Array]] = [[] for _ in people]
    rows: dict[str, list[list[float]]] = {}
    for noise in range(noises):
        latents = torch.cat(list(speaker.clips(people, frames, 100 + noise)), dim=1)
        for index, (person, own) in enumerate(zip(people, latents, strict=True)):
            decoded = codec.decode(own[::every])
            read = person.reader.read(decoded)
            readings[index].append(read)
            other = people[(index + 1) % len(people)]
            for name, value in _metrics(person, other, decoded, read, every).items():
                rows.setdefault(name, [[] for _ in people])[index].append(value)
    curves = {name: _means(values) for name, values in rows.items()}
    curves["diversity"] = _diversity(people, [np.stack(r) for r in readings])
    seconds = len(people) * noises * frames / FPS
    return ClipResult({"seconds per second": speaker.seconds / seconds}, curves)


def measure_ceiling(people: Sequence[Person], codec: Codec, *, every: int) -> ClipResult:
    """The same of the true frames through the autoencoder: the best that a denoiser could reach.

    Its "diversity" is what errors of reading add.
    """
    rows: dict[str, list[list[float]]] = {}
    errors: list[Array] = []
    for index, person in enumerate(people):
        decoded = codec.decode(codec.encode(person.trial.drawing(range(0, len(person.truth), every))))
        read = person.reader.read(decoded)
        errors.append(read - person.truth[::every])
        other = people[(index + 1) % len(people)]
        for name, value in _metrics(person, other, decoded, read, every).items():
            rows.setdefault(name, [[] for _ in people])[index].append(value)
    curves = {name: _means(values) for name, values in rows.items()}
    curves["diversity"] = _shares(people, [e.var(0) for e in errors])
    return ClipResult({}, curves)


def _metrics(person: Person, other: Person, frames: Tensor, read: Array, every: int) -> dict[str, float]:
    truth, foreign = person.truth[::every], other.truth[::every]
    portrait = person.trial.portrait
    found = {lip: correlation(read[:, i], truth[:, i]) for i, lip in enumerate(SHOWN)}
    found["jaw, other speech"] = correlation(read[:, 0], foreign[:, 0])
    found["jaw amplitude"] = float(read[:, 0].std() / max(truth[:, 0].std(), 1e-6))
    colour, shape, sharp = looks(person.reader, person.calm, portrait, frames)
    found["colour error"] = float(colour.mean())
    found["static error"] = float(colour_error(frames, portrait, person.still).mean())
    found["shape error"] = float(shape.mean())
    found["sharpness"] = float(sharp.mean() / gradient_energy(portrait[None]).mean())
    return found


def _diversity(people: Sequence[Person], readings: Sequence[Array]) -> Array:
    """Variance of head movement over the seeds, (seeds, t, 11) a person, as a share of the data's."""
    return _shares(
        people, [np.array([variance_over_seeds(r[:, :, i]) for i in range(len(FACE))]) for r in readings]
    )


def _shares(people: Sequence[Person], variances: Sequence[Array]) -> Array:
    columns = [FACE.index(name) for name in HEAD]
    data = np.array(
        [[variance_over_seeds(true_movement(p.trial, FPS, DATA_SEEDS)[:, :, i]) for i in columns] for p in people]
    )
    unit = data.mean(0)  # a single person's short speech may hardly move a column
    return np.array([float((v[columns] / unit).mean()) for v in variances])


def _means(values: Sequence[Sequence[float]]) -> Array:
    """Mean over seeds for each person; NaN where all are undefined."""
    with np.errstate(invalid="ignore"):
        rows = np.array(values, np.float64)
        known = np.isfinite(rows)
        return np.where(known.any(1), np.where(known, rows, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan)
