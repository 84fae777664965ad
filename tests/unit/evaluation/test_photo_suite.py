"""The suite of photographs tells good frames from bad ones, on small puppets and without any network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.protocols import FrameSink
from letstalk_research.data.synthetic.motion import MOTION
from letstalk_research.data.synthetic.speech import Utterance
from letstalk_research.data.synthetic.texts import random_utterance
from letstalk_research.evaluation.face_curves import CURVES, bridged, face_curves, shape_error
from letstalk_research.evaluation.film_suites import Film, find_films, run_real
from letstalk_research.evaluation.photo_suite import PhotoBudget, run_photo
from letstalk_research.evaluation.photo_trials import PhotoTrial, TestStill, draw_photo_trial, load_test_stills
from tests.unit.data.photo_faces import face_points, write_stills

from .pictures import shrunk

SIZE, SECONDS = 64, 1.6
MOVEMENT = ("blink", "yaw", "pitch", "roll")
JAW = MOTION.index("jaw")
Array = NDArray[np.float64]


SAID: dict[str, Utterance] = {}


def speak(rng: np.random.Generator, split: str, min_seconds: float) -> Utterance:
    """The same sound for the same numbers: espeak-ng's own differs a little from call to call."""
    key = f"{rng.bit_generator.state} {min_seconds}"
    if key not in SAID:
        SAID[key] = random_utterance(rng, split, min_seconds=min_seconds)
    return SAID[key]


class Actor:
    """A subject that shows the puppet itself, with other clips' mouths or as a still, and that reads exactly."""

    fps, size, clip_frames = 25.0, SIZE, 8

    def __init__(self, tests: list[TestStill], kind: str = "puppet") -> None:
        self.tests, self.kind = tests, kind
        self.points: dict[bytes, Array] = {}
        self.generated = 0

    def trial(self, seed: int) -> PhotoTrial:
        trial = draw_photo_trial(self.tests, 0, seed, seconds=SECONDS, size=SIZE, movement=MOVEMENT, speak=speak)
        for frame, points in zip(trial.frames, trial.points, strict=True):
            self.points[frame.numpy().tobytes()] = points
        return trial

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int, steps: int | None = None) -> Tensor:
        self.generated += 1
        trial = self.trial(seed)
        assert torch.equal(trial.portrait, portrait) and len(waveform) == 640 * len(trial.frames)
        if self.kind == "still":
            return trial.frames[:1].repeat(len(trial.frames), 1, 1, 1)
        return trial.frames.clone()

    def stream(self, portrait: Tensor, sound: Path, sink: FrameSink, seed: int, work: Path) -> None:
        for part in self.trial(seed).frames.split(8):
            sink.write(part)
        sink.close()

    def round_trip(self, frames: Tensor) -> Tensor:
        return shrunk(frames, 32)

    def carried(self, portrait: Tensor, frames: Tensor) -> Tensor | None:
        return (self.round_trip(frames).float() * 0.3 + frames.float() * 0.7).round().to(torch.uint8)

    def read(self, frames: Tensor) -> Array:
        return np.stack([self.points.get(f.numpy().tobytes(), np.full((478, 2), np.nan)) for f in frames])


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory, espeak: None) -> list[TestStill]:
    return load_test_stills(write_stills(tmp_path_factory.mktemp("stills"), held_out=2))


def test_only_held_out_stills_are_tested(tests: list[TestStill]) -> None:
    assert {t.still.id for t in tests} == {"held0", "held1"}
    assert tests[0].groups == ["skin 3-4"]


def test_the_puppet_moves_as_the_model_is_told(tests: list[TestStill]) -> None:
    trial = draw_photo_trial(tests, 3, 1, seconds=SECONDS, size=SIZE, movement=MOVEMENT, speak=speak)
    still = draw_photo_trial(tests, 3, 1, seconds=SECONDS, size=SIZE, speak=speak)
    yaw = MOTION.index("yaw")
    assert not np.allclose(trial.motion[:, yaw], still.motion[:, yaw])
    assert np.array_equal(trial.motion[:, JAW], still.motion[:, JAW])
    opening = face_curves(trial.points)[:, CURVES.index("opening")]
    assert np.corrcoef(opening, trial.motion[:, JAW])[0, 1] > 0.6


@pytest.mark.slow
def test_a_perfect_model_meets_the_aims_and_a_still_does_not(tests: list[TestStill], tmp_path: Path) -> None:
    budget = PhotoBudget(clips=2, seconds=SECONDS, speed_runs=1, speed_seconds=SECONDS)
    found = {}
    for kind in ("puppet", "still"):
        actor = Actor(tests, kind)
        settings = {"out_dir": tmp_path / kind, "parts": ("photo", "speed"), "movement": MOVEMENT, "speak": speak}
        report = run_photo(actor, tests, actor.read, budget, **settings)
        found[kind] = {row.name: row for row in report.rows}
    good, bad = found["puppet"], found["still"]
    assert good["mouth opening against jaw"].met and good["the same: lag in frames"].value.mean == 0
    assert good["generated frames to the puppet's, PSNR"].value.mean == 99
    assert good["head yaw to the puppet's"].value.mean == pytest.approx(1)
    assert good["opening against jaw, skin 3-4"].value.count == 2
    assert good["speed: frames per second"].value.count == 1
    assert not bad["mouth opening against jaw"].met and not bad["head yaw to the puppet's"].met
    assert bad["generated frames to the puppet's, PSNR"].value.mean < 40
    carried = good["decode and carry, PSNR: frame"].value.mean
    plain = json.loads((tmp_path / "puppet" / "report.json").read_text())["metrics"]["plain PSNR: frame"]["mean"]
    assert carried > plain + 5
    assert (tmp_path / "puppet" / "photo_sheet_0.png").is_file()


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_other_settings_do_not(tests: list[TestStill], tmp_path: Path) -> None:
    actor = Actor(tests)

    def run(**other: object) -> None:
        budget = PhotoBudget(clips=2, seconds=SECONDS, long_minutes=0.05)
        keywords = {"parts": ("photo",), "movement": MOVEMENT, "speak": speak, **other}
        run_photo(actor, tests, actor.read, budget, out_dir=tmp_path, **keywords)  # type: ignore[arg-type]

    run()
    assert actor.generated == 2
    run(parts=("photo", "long"))
    assert actor.generated == 2  # the long one is streamed
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"]["slope a minute: sharpness"]["count"] == 5
    with pytest.raises(ConfigError, match="other settings"):
        run(seed=1)
    with pytest.raises(ConfigError, match="parts=lips"):
        run(parts=("lips",))


def test_curves_do_not_depend_on_place_size_and_turn() -> None:
    points = np.stack([face_points(gap)[:, :2] for gap in (0.0, 0.05, 0.1)]).astype(np.float64)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    before, after = face_curves(points), face_curves(2.5 * points @ turn.T + 40)
    opening = before[:, CURVES.index("opening")]
    assert opening[0] < 0.02 and opening[1] > opening[0] + 0.02 and opening[2] > opening[1] + 0.02
    assert np.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert shape_error(2.5 * points @ turn.T + 40, points) == pytest.approx(0, abs=1e-5)
    moved = points.copy()
    moved[:, 33] += 5
    assert (shape_error(moved, points) > 0.005).all()
    assert np.array_equal(bridged(np.array([0.0, np.nan, 1.0])), [0.0, 0.5, 1.0])


@pytest.mark.slow
def test_films_are_compared_with_their_own_sound(
    tests: list[TestStill], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = {}
    actor = Actor(tests)
    for i in range(2):
        trial = actor.trial(i)
        films[f"{i}.mp4"] = Film(trial.portrait, trial.frames, face_curves(trial.points), trial.waveform)
    monkeypatch.setattr(Film, "read", staticmethod(lambda path, reader, **_: films[path.name]))
    report = run_real(actor, [Path(name) for name in films], actor.read, out_dir=tmp_path)
    rows = {row.name: row for row in report.rows}
    assert rows["lips, opening: generated against filmed"].value.mean == pytest.approx(1)
    assert rows["the same: margin over another clip, opening"].met
    with pytest.raises(MediaError, match="holds no video"):
        find_films(tmp_path / "nothing")
