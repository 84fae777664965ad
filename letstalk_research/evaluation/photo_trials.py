"""Photographs that a model is tested on: held-out stills, each with a held-out sentence, and the puppet's answer.

Head and eyes of the puppet move as the model is told to move them, so that frames can be compared one by one; its
lips by the rules that the lips stage learns (`data.synthetic.lip_rules`).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ
from letstalk_core.networks.motion_channels import LIPS, MOTION
from letstalk_core.sampling.motion import Movement

from ..data.photo.casting import cast_still
from ..data.photo.clips import photo_clip
from ..data.photo.stills import Still, load_stills
from ..data.synthetic.dataset import FPS, DrawnClip
from ..data.synthetic.identity import sample_identity
from ..data.synthetic.lip_rules import lip_curves
from ..data.synthetic.motion import motion_from_speech
from ..data.synthetic.speech import SILENCE, Utterance
from ..data.synthetic.texts import Speaker, random_utterance

STREAM = 8  # of random numbers: neither those of training nor those of drawn tests
ABSOLUTE = {"blink"}  # channels of movement that are not relative to the portrait

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TestStill:
    """A held-out still and the groups it counts in."""

    __test__ = False  # no test of pytest's

    still: Still
    age: str = ""

    @property
    def groups(self) -> list[str]:
        """Such as "skin 3-4" (lightness of the picture's skin) and "age old"."""
        skin = [f"skin {2 * ((self.still.skin - 1) // 2) + 1}-{2 * ((self.still.skin - 1) // 2) + 2}"]
        return (skin if self.still.skin else []) + ([f"age {self.age}"] if self.age else [])


def load_test_stills(folder: Path, landmarks: Path | None = None, seed: int = 0) -> list[TestStill]:
    """The held-out stills in an order of their own, so that the first few are of all kinds. Raises: MediaError."""
    ages: dict[str, str] = {}
    table = folder / "portraits.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            ages = {row.get("id", ""): row.get("age_group") or "" for row in csv.DictReader(file)}
    found = [TestStill(s, ages.get(s.id, "")) for s in load_stills(folder, landmarks, held_out=True)]
    return [found[i] for i in np.random.default_rng([seed, STREAM]).permutation(len(found))]


@dataclass(frozen=True, eq=False)
class PhotoTrial:
    """One photograph, what it says, and the puppet that says it."""

    test: TestStill
    utterance: Utterance
    motion: NDArray[np.float32]  # (t, 15)
    portrait: Tensor  # (size, size, 3) uint8
    frames: Tensor  # (t, size, size, 3) uint8
    points: Array  # (t, 478, 2) in pixels, exact
    boxes: Tensor  # (t, 3, 4): mouth, eyes
    waveform: Tensor = field(repr=False)
    seed: int = 0

    def spans(self, symbols: Sequence[str]) -> list[tuple[float, float]]:
        """Begin and end in seconds of the sounds that are among `symbols`."""
        end = len(self.motion) / FPS
        return [
            (p.start_s, p.end_s) for p in self.utterance.phonemes if p.symbol in symbols and p.end_s < end - 0.1
        ]

    def silent(self) -> NDArray[np.bool_]:
        """Frames (t,) whose middle is in a pause or after the end."""
        centres = (np.arange(len(self.motion)) + 0.5) / FPS
        found = centres >= self.utterance.seconds
        for start, end in self.spans((SILENCE,)):
            found |= (centres >= start) & (centres < end)
        return np.asarray(found)

    def notes(self) -> dict[str, str]:
        named = {group.split()[0]: group.split()[1] for group in self.test.groups}
        return {"text": self.utterance.text, "voice": self.utterance.voice, "person": self.test.still.id, **named}


def draw_photo_trial(
    tests: Sequence[TestStill],
    seed: int,
    index: int,
    *,
    seconds: float,
    size: int,
    movement: Sequence[str] = (),
    speak: Speaker = random_utterance,
) -> PhotoTrial:
    """Trial `index`: stills take turns. `movement`: channels that the model is told, as it draws them itself.

    Raises: ConfigError, MediaError, DependencyError without espeak-ng.
    """
    if not tests:
        raise ConfigError("there is no held-out still; add rows with split heldout to portraits.csv")
    test = tests[index % len(tests)]
    person, said, moves, pose = (np.random.default_rng([seed, STREAM, index, i]) for i in range(4))
    frames = round(seconds * FPS)
    utterance = speak(said, "held_out", min_seconds=seconds)
    motion = motion_from_speech(utterance, frames, FPS, moves)
    motion[:, [MOTION.index(name) for name in LIPS]] = lip_curves(utterance, FPS, frames)
    still = np.zeros((1, len(MOTION)), np.float32)
    still[0, MOTION.index("scale")] = 1.0
    rows = Movement(movement, seed=seed + index, fps=FPS).rows(0, frames).numpy()
    for name, column in zip(movement, rows.T, strict=True):
        i = MOTION.index(name)
        motion[:, i] = column if name in ABSOLUTE else column + still[0, i]
    clip = DrawnClip(sample_identity(np.random.default_rng(0)), utterance, motion, still, 0)
    made = photo_clip(cast_still(test.still, person), clip, size=size, with_flow=False, rng=pose)
    samples = round(seconds * SAMPLE_RATE_HZ)
    waveform = torch.from_numpy(utterance.waveform[:samples].copy())
    return PhotoTrial(
        test,
        utterance,
        motion,
        made["portraits"][0],
        made["frames"],
        (made["landmarks"].double().numpy() + 1) / 2 * size,
        made["regions"],
        torch.nn.functional.pad(waveform, (0, samples - len(waveform))),
        seed + index,
    )
