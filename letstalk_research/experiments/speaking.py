"""Short clips of held-out people: what each variant is compared by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.media.audio.alignment import window_states
from letstalk_core.networks.load import load_model
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.sampling.clip import Clip, Guidance, SolverClipSampler, conditioned
from letstalk_core.sampling.denoisers import make_denoiser
from letstalk_core.sampling.long_video import generate_clips, plan_clips
from letstalk_core.sampling.memory_bank import MemoryBank, MemorySettings
from letstalk_core.sampling.schedules import default_shift, make_sigmas

from ..evaluation.face_reader import FACE, HEAD, LIPS
from ..evaluation.liveliness import true_movement, variance_over_seeds
from ..evaluation.metrics import cell_colors, colour_error, correlation, gradient_energy
from ..evaluation.store import ClipResult
from .people import FPS, Codec, Person
from .runs import Trained

__all__ = ["Speaker", "measure_ceiling", "measure_speech"]

DATA_SEEDS = 32  # of the true movement
SHOWN = LIPS[:3]

Array = NDArray[np.float64]


@dataclass(eq=False)
class Speaker:
    """A trained denoiser that makes the people of a batch speak together.

    `memory_noise` is the sigma of the noise on remembered frames. `seconds` counts what sampling took,
    on a CPU in processor time, so that other work on the machine does not count.
    """

    trained: Trained
    steps: int
    solver: str = "euler"
    audio_scale: float = 1.0
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
        sampler = SolverClipSampler(
            self._denoiser, self.solver, self._sigmas, Guidance(audio=self.audio_scale), seed=seed
        )

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
    found["colour error"] = float(
        colour_error(cell_colors(frames), cell_colors(portrait[None])[0], person.calm).mean()
    )
    found["static error"] = float(colour_error(frames, portrait, person.still).mean())
    found["shape error"] = float(person.reader.landmark_error(frames).mean())
    found["sharpness"] = float(gradient_energy(frames).mean() / gradient_energy(portrait[None]).mean())
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
