"""The measures tell right frames from wrong ones, for a speaker that draws and a codec that keeps pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor

from letstalk_core.networks.audio_encoder import AudioEncoder
from letstalk_research.data.synthetic.faces import render
from letstalk_research.experiments.memory import measure_long_run
from letstalk_research.experiments.people import Person, measure_ceiling, measure_speech, meet

SIZE, FRAMES = 64, 32


class Pixels:
    """A codec whose latents are the pixels."""

    def encode(self, frames: Tensor) -> Tensor:
        return rearrange(frames.float() / 255, "t h w c -> t c h w")

    def decode(self, latents: Tensor) -> Tensor:
        return rearrange((latents * 255).round().clamp(0, 255).to(torch.uint8), "t c h w -> t h w c")


class Drawer:
    """A speaker who draws the truth; `fade` is taken off more with each clip, `jump` is added to every other"
    " one."""

    class config:
        clip_frames = 16

    def __init__(
        self, *, shuffle: bool = False, fade: float = 0.0, jump: float = 0.0, still: bool = False
    ) -> None:
        self.shuffle, self.fade, self.jump, self.still = shuffle, fade, jump, still
        self.seconds = 1.0

    def clips(self, people: list[Person], frames: int, seed: int) -> Iterator[Tensor]:
        for clip, first in enumerate(range(0, frames, 16)):
            made = []
            for i, person in enumerate(people):
                source = people[(i + 1) % len(people)] if self.shuffle else person
                motion = person.trial.motion.copy()
                motion[:, :4] = source.trial.motion[:, :4]
                drawn = _draw(person, motion[first : first + 16])
                if self.still:
                    drawn = person.portrait[None].repeat(len(drawn), 1, 1, 1)
                made.append(drawn - self.fade * clip + self.jump * (clip % 2))
            yield torch.stack(made)


def _draw(person: Person, motion: np.ndarray) -> Tensor:
    return Pixels().encode(render(person.trial.identity, motion, size=SIZE).cpu())


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, espeak: None, encoder: AudioEncoder) -> list[Person]:
    folder = tmp_path_factory.mktemp("people")
    options: Any = {"seed": 0, "size": SIZE, "poses": 64, "codec": Pixels(), "audio_encoder": encoder}
    return [meet(i, frames=FRAMES, folder=folder, **options) for i in range(2)]


def test_the_truth_scores_high_and_other_lips_do_not(people: list[Person]) -> None:
    options: Any = {"every": 2, "noises": 2}
    right = measure_speech(Drawer(), people, Pixels(), **options)  # type: ignore[arg-type]
    wrong = measure_speech(Drawer(shuffle=True), people, Pixels(), **options)  # type: ignore[arg-type]
    assert right.curves["jaw"].shape == (2,)
    assert right.curves["jaw"].min() > 0.9 > wrong.curves["jaw"].mean() + 0.2
    assert wrong.curves["jaw, other speech"].min() > 0.9
    assert right.curves["diversity"] == pytest.approx(0, abs=1e-9)  # every seed draws the same
    assert right.curves["static error"].max() < 1
    assert right.metrics["seconds per second"] == pytest.approx(1 / (2 * 2 * FRAMES / 25))


def test_the_ceiling_is_what_the_codec_lets_through(people: list[Person]) -> None:
    top = measure_ceiling(people, Pixels(), every=2)  # type: ignore[arg-type]
    right = measure_speech(Drawer(), people, Pixels(), every=2, noises=2)  # type: ignore[arg-type]
    for name in ("jaw", "colour error", "shape error", "sharpness"):
        assert top.curves[name] == pytest.approx(right.curves[name], rel=0.02)


def test_long_runs_show_fading_seams_and_stillness(people: list[Person]) -> None:
    class Facts:
        from_portrait, between_frames = 0.1, 0.02

    def curves(**wrong: Any) -> dict[str, np.ndarray]:
        return measure_long_run(Drawer(**wrong), people, Pixels(), Facts()).curves  # type: ignore[arg-type]

    plain, faded, jumping, still = curves(), curves(fade=0.2), curves(jump=0.2), curves(still=True)
    assert plain["distance"].shape == plain["seam"].shape == (2, FRAMES // 16)
    assert np.isnan(plain["seam"][:, 0]).all() and (plain["seam"][:, 1:] < 3).all()
    assert (faded["distance"][:, 1] > plain["distance"][:, 1] * 1.3).all()
    assert (faded["colour error"][:, 1] > 5 * plain["colour error"][:, 1]).all()
    assert (jumping["seam"][:, 1] > plain["seam"][:, 1] * 2).all()
    assert jumping["movement"] == pytest.approx(plain["movement"], rel=1e-4)
    assert still["movement"].max() == 0 and still["distance"].max() == 0


def test_what_people_say_is_kept_from_run_to_run(espeak: None, encoder: AudioEncoder, tmp_path: Path) -> None:
    options: Any = {"seed": 0, "size": SIZE, "poses": 16, "codec": Pixels(), "audio_encoder": encoder}
    first = meet(0, frames=FRAMES, folder=tmp_path, **options)
    again = meet(0, frames=FRAMES, folder=tmp_path, like=first, **options)
    assert torch.equal(first.trial.waveform, again.trial.waveform)
    assert np.array_equal(first.truth, again.truth) and again.reader is first.reader
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"torn")
    assert len(meet(0, frames=FRAMES, folder=tmp_path, like=first, **options).truth) == FRAMES
