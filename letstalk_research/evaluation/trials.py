"""Who and what a model is tested on: drawn people of no training data, held-out sentences and voices.

Person, speech, movement and the portrait's pose come from separate streams of random numbers: only espeak-ng's
sound, and the lips that follow it, can differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ
from letstalk_core.protocols import FrameSink

from ..data.synthetic.faces import FRAME_SIZE, render
from ..data.synthetic.identity import SKIN_TONES, Identity, sample_identity
from ..data.synthetic.motion import motion_from_speech, neutral_pose
from ..data.synthetic.speech import SILENCE, Utterance, silence
from ..data.synthetic.texts import random_utterance

STREAM = 7  # of random numbers: neither the training nor the validation people
PURPOSES = ("person", "speech", "motion", "portrait", "reader", "noise")


class Subject(Protocol):
    """What is measured."""

    @property
    def fps(self) -> float: ...
    @property
    def size(self) -> int:
        """Height and width of its frames in pixels."""

    @property
    def clip_frames(self) -> int:
        """Frames that are generated at once."""

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int, steps: int | None = None) -> Tensor:
        """Frames (t, size, size, 3) uint8 of a portrait (size, size, 3) uint8 speaking a 16 kHz waveform (s,).

        `steps` of the sampler; None is its own number.
        """

    def stream(self, portrait: Tensor, sound: Path, sink: FrameSink, seed: int, work: Path) -> None:
        """The same for a sound file of any length, in constant memory; a killed run goes on from `work`."""

    def round_trip(self, frames: Tensor) -> Tensor:
        """Frames (t, size, size, 3) uint8 through the autoencoder and back."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A person who speaks: portrait, sound and true motion."""

    index: int
    identity: Identity
    utterance: Utterance
    portrait_motion: NDArray[np.float32]  # (15,)
    motion: NDArray[np.float32]  # (t, 15)
    portrait: Tensor  # (size, size, 3) uint8
    waveform: Tensor = field(repr=False)  # (s,), exactly t frames long
    seed: int = 0

    def drawing(self, frames: Iterable[int] | None = None) -> Tensor:
        """The right answer (t, size, size, 3) uint8, or some frames of it."""
        motion = self.motion if frames is None else self.motion[list(frames)]
        return render(self.identity, motion, size=self.portrait.shape[0]).cpu()

    def silent(self, fps: float) -> NDArray[np.bool_]:
        """Frames (t,) whose middle is in a pause, or after the end of the sound."""
        centres = (np.arange(len(self.motion)) + 0.5) / fps
        found = centres >= self.utterance.seconds
        for p in self.utterance.phonemes:
            if p.symbol == SILENCE:
                found |= (centres >= p.start_s) & (centres < p.end_s)
        return np.asarray(found)

    def notes(self) -> dict[str, str]:
        group = self.identity.skin_group
        return {
            "text": self.utterance.text,
            "voice": self.utterance.voice,
            "skin": f"{group + 1}/{len(SKIN_TONES)}",
        }


def stream(seed: int, index: int, purpose: str) -> Generator:
    """The random numbers of one purpose of trial `index`."""
    return np.random.default_rng([seed, STREAM, index, PURPOSES.index(purpose)])


def draw_trial(
    seed: int, index: int, *, frames: int, fps: float, size: int = FRAME_SIZE, speech: bool = True
) -> Trial:
    """Trial `index` of a test; skin tones take turns. Without `speech` the person listens to silence.

    Depends on the arguments alone (sound: see `data.synthetic.speech`). Raises: DependencyError without espeak-ng.
    """
    person = stream(seed, index, "person")
    identity = sample_identity(person)
    while identity.skin_group != index % len(SKIN_TONES):
        identity = sample_identity(person)
    seconds = frames / fps
    said = stream(seed, index, "speech")
    utterance = random_utterance(said, "held_out", min_seconds=seconds) if speech else silence(seconds)
    motion = motion_from_speech(utterance, frames, fps, stream(seed, index, "motion"))
    portrait_motion = neutral_pose(stream(seed, index, "portrait"))
    portrait_motion[:4] = 0.0  # closed mouths make the task the same for everybody
    portrait = render(identity, portrait_motion[None], size=size).cpu()[0]
    samples = round(seconds * SAMPLE_RATE_HZ)
    waveform = torch.from_numpy(utterance.waveform[:samples].copy())
    waveform = torch.nn.functional.pad(waveform, (0, samples - len(waveform)))
    return Trial(index, identity, utterance, portrait_motion, motion, portrait, waveform, seed)
