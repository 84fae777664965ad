"""Given movement: tables, emotions, how they come into what is drawn, and the rows of a face with its lips."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError, LetsTalkError, MediaError
from letstalk_core.generate.face_motion import FaceMotion, Hearing
from letstalk_core.generate.motion_source import load_motion, parse_emotion
from letstalk_core.media.audio.features import AudioFeatures
from letstalk_core.networks.configs import LipsConfig
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.motion_channels import LIPS, MOTION, MOVEMENTS
from letstalk_core.sampling.motion import Movement
from letstalk_core.sampling.motion_curves import EMOTIONS, MotionCurves, check_emotion


def column(movement: Movement, name: str, first: int = 0, count: int = 40) -> np.ndarray:
    return movement.rows(first, count)[:, MOVEMENTS.index(name)].numpy()


def test_given_channels_replace_and_the_others_stay_drawn() -> None:
    yaw = torch.linspace(-0.4, 0.4, 10)
    drawn = Movement(MOVEMENTS, seed=3)
    moved = Movement(MOVEMENTS, seed=3, amount=2.0, curves=MotionCurves({"yaw": yaw}))
    assert np.array_equal(column(moved, "yaw", 0, 10), yaw.numpy())
    assert (column(moved, "yaw", 10) == yaw[-1].item()).all()  # held
    assert np.array_equal(column(moved, "blink"), column(drawn, "blink"))
    assert np.array_equal(moved.rows(7, 9), moved.rows(0, 20)[7:16])  # any part is a part of the whole


def test_a_film_runs_back_and_forth() -> None:
    rows = torch.zeros(4, len(MOVEMENTS))
    rows[:, MOVEMENTS.index("pitch")] = torch.tensor([0.0, 0.1, 0.2, 9.0])
    moved = Movement(MOVEMENTS, seed=0, curves=MotionCurves.of_frames(rows, mirrored=True))
    assert column(moved, "pitch", 0, 8) == pytest.approx([0, 0.1, 0.2, 0.75, 0.2, 0.1, 0, 0.1])  # 9 is held in


def test_an_emotion_comes_in_over_the_first_second_on_top_of_all() -> None:
    happy = MotionCurves({"smile": torch.zeros(1)}, added=check_emotion("happy"))
    moved, drawn = Movement(MOVEMENTS, seed=1, curves=happy), Movement(MOVEMENTS, seed=1)
    smile, brow = column(moved, "smile"), column(moved, "brow") - column(drawn, "brow")
    assert smile[0] == 0 and (np.diff(smile[:25]) > 0).all()
    assert smile[30] == pytest.approx(EMOTIONS["happy"]["smile"])
    assert brow[30] == pytest.approx(EMOTIONS["happy"]["brow"], abs=1e-6)
    assert parse_emotion("sad:0.5") == {name: value / 2 for name, value in EMOTIONS["sad"].items()}
    for text in ("merry", "happy:5", "happy:much"):
        with pytest.raises(ConfigError, match="emotion"):
            parse_emotion(text)


def test_tables_say_the_same_in_every_form(tmp_path: Path) -> None:
    forms = {
        "a.csv": "frame,yaw,blink\n0,0,0\n4,0.4,\n8,0,1\n",
        "b.csv": "time, blink, yaw\n0.0,0,0\n\n0.16,,0.4\n0.32,1,0.0\n",
        "c.json": json.dumps({"frame": [0, 4, 8], "yaw": [0, 0.4, 0], "blink": [0, None, 1]}),
        "d.json": json.dumps(
            [{"time": 0, "yaw": 0, "blink": 0}, {"time": 0.16, "yaw": 0.4}, {"time": 0.32, "yaw": 0, "blink": 1}]
        ),
    }
    found = {}
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        found[name] = load_motion(tmp_path / name, 25.0)
        assert found[name].columns["yaw"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.3, 0.2, 0.1, 0])
        assert found[name].columns["blink"].tolist() == pytest.approx(np.linspace(0, 1, 9))
    assert found["a.csv"].fingerprint == found["c.json"].fingerprint
    doubled = MotionCurves.load(tmp_path / "b.csv", 50.0)
    assert len(doubled.columns["yaw"]) == 17 and len({found["a.csv"].fingerprint, doubled.fingerprint}) == 2
    assert not MotionCurves() and MotionCurves().fingerprint != found["a.csv"].fingerprint


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "frame,yow\n0,1\n", "'yow' is no channel"),
        ("a.csv", "frame\n0\n", "holds no channel"),
        ("a.csv", "frame,yaw\n0,2\n", "yaw is 2 at frame 0; must be -1.2 to 1.2"),
        ("a.csv", "frame,blink\n0,0\n1,-1\n", "blink is -1 at frame 1; must be 0 to 1"),
        ("a.csv", "frame,yaw\n3,0\n1,0\n", "frame must rise"),
        ("a.csv", "frame,time,yaw\n0,0,0\n", "both columns"),
        ("a.csv", "frame,yaw\n0,left\n", "no table of motion"),
        ("a.csv", "frame,yaw\n0\n", "different lengths"),
        ("a.csv", "", "no rows"),
        ("a.json", "[1, 2]", "neither an object"),
        ("a.json", "{", "no table of motion"),
        ("a.json", '{"yaw": [0, 1], "frame": [0]}', "different lengths"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LetsTalkError) as refused:
        load_motion(tmp_path / name, 25.0)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("missing.csv", "missing.mp4"):
        with pytest.raises(MediaError, match="missing"):
            load_motion(tmp_path / name, 25.0)


# rows of a face that is its own

STATES = torch.randn(200, 2, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def lips() -> Lips:
    torch.manual_seed(0)
    return Lips(LipsConfig(layers=2, encoder_dim=8, hidden_size=8)).eval().requires_grad_(False)


def streamed() -> AudioFeatures:
    def parts() -> Iterator[Tensor]:
        yield from STATES.split(20)

    return AudioFeatures(parts(), len(STATES), keep=8)


def test_lips_are_read_from_the_sound_around_each_frame(lips: Lips) -> None:
    rows = FaceMotion(lips, AudioFeatures(STATES), Movement([], seed=0)).rows(40, 5)
    windows = AudioFeatures(STATES).windows(40, 5, lips.window)
    torch.testing.assert_close(rows[:, : len(LIPS)], lips(windows))
    assert rows.shape == (5, len(MOTION))
    assert float(rows[:, len(LIPS) :].abs().max()) == 0


def test_what_is_told_is_in_its_columns(lips: Lips) -> None:
    moves = Movement(["blink", "yaw"], seed=3)
    rows = FaceMotion(lips, AudioFeatures(STATES), moves).rows(0, 100)
    torch.testing.assert_close(rows[:, [MOTION.index("blink"), MOTION.index("yaw")]], moves.rows(0, 100))
    assert float(rows[:, MOTION.index("blink")].max()) == 1.0


def test_a_stream_may_be_heard_again_from_its_start(lips: Lips) -> None:
    face = FaceMotion(lips, Hearing(streamed), Movement([], seed=0))
    late = face.rows(150, 8)
    early = face.rows(3, 8)  # long gone
    whole = FaceMotion(lips, AudioFeatures(STATES), Movement([], seed=0))
    torch.testing.assert_close(early, whole.rows(3, 8))
    torch.testing.assert_close(late, whole.rows(150, 8))
