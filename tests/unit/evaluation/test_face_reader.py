"""Readers of drawn faces find what was drawn, and measures react to what they claim to measure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.puppet.topology import EYES
from letstalk_research.data.synthetic.faces import render
from letstalk_research.data.synthetic.identity import Identity, sample_identity
from letstalk_research.data.synthetic.motion import MOTION, motion_from_speech, neutral_pose, random_pose
from letstalk_research.data.synthetic.speech import silence
from letstalk_research.evaluation.face_reader import (
    FACE,
    LANDMARKS,
    FaceReader,
    agreement,
    face_truth,
    landmark_positions,
)
from letstalk_research.evaluation.lids import LidReader
from letstalk_research.evaluation.metrics import blinks, correlation

from .pictures import shrunk

SIZE = 96


@pytest.fixture(scope="module")
def person() -> Identity:
    return sample_identity(np.random.default_rng(1))


@pytest.fixture(scope="module")
def reader(person: Identity) -> FaceReader:
    rng = np.random.default_rng(2)
    return FaceReader.fit(person, neutral_pose(rng), rng, poses=160, size=SIZE)


def test_lips_eyes_and_head_are_read_from_sharp_and_blurred_drawings(person: Identity, reader: FaceReader) -> None:
    rng = np.random.default_rng(3)
    motion = random_pose(rng, 48)
    motion[:, MOTION.index("blink")] = rng.uniform(0, 1, 48)
    frames = render(person, motion, size=SIZE)
    for pictures in (frames, shrunk(frames, SIZE // 2)):
        found = agreement(reader.read(pictures), face_truth(motion))
        assert found["jaw"] > 0.95 and found["width"] > 0.85 and found["round"] > 0.75
        assert found["blink"] > 0.95
        assert all(found[name] > 0.95 for name in ("yaw", "pitch", "roll", "shift_x", "shift_y"))


def test_known_blinks_are_counted_and_followed(person: Identity, reader: FaceReader) -> None:
    motion = motion_from_speech(silence(8.0), 200, 25.0, np.random.default_rng(4))
    lids = motion[:, MOTION.index("blink")]
    assert blinks(lids) >= 2
    measured = reader.read(render(person, motion, size=SIZE))[:, FACE.index("blink")]
    assert correlation(measured, lids) > 0.9
    assert blinks(measured) == blinks(lids)


def test_landmarks_are_found_within_half_a_pixel(person: Identity, reader: FaceReader) -> None:
    motion = random_pose(np.random.default_rng(5), 24)
    found = reader.landmarks(render(person, motion, size=SIZE))
    wanted = landmark_positions(person, motion, SIZE)
    assert found.shape == (24, len(LANDMARKS), 2)
    assert np.sqrt(np.square(found - wanted).sum(-1).mean()) < 0.5


def test_the_landmark_error_sees_another_face_and_no_pose(person: Identity, reader: FaceReader) -> None:
    motion = random_pose(np.random.default_rng(6), 24)
    own = reader.landmark_error(render(person, motion, size=SIZE)).mean()
    wider = replace(person, eye_x=person.eye_x + 0.03)
    assert own < 0.2 < 2.5 * own < reader.landmark_error(render(wider, motion, size=SIZE)).mean()


def test_the_truth_has_the_width_of_the_lips() -> None:
    motion = np.zeros((2, 15), np.float32)
    motion[1, 1] = 1
    assert face_truth(motion)[:, FACE.index("width")] == pytest.approx([1.0, 1.2])


def test_a_reader_refuses_frames_of_another_size_and_too_few_poses(person: Identity) -> None:
    rng = np.random.default_rng(0)
    reader = FaceReader.fit(person, neutral_pose(rng), rng, poses=16, size=32)
    with pytest.raises(ConfigError, match="32, 32, 3"):
        reader.read(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="poses=3"):
        FaceReader.fit(person, neutral_pose(rng), rng, poses=3, size=32)


# blinks, by what a puppet of the same person looks like


TIMES = 40
LIDS = np.interp(np.arange(TIMES) % 20, [6, 8, 10, 12], [0, 1, 1, 0])  # two blinks
POINTS = np.full((TIMES, 478, 2), np.nan)  # but for the corners of the eyes
for eye, (left, right) in zip(EYES, ((10, 22), (54, 42)), strict=True):
    POINTS[:, list(eye.corners)] = [[left, 14], [right, 14]]


def frames(lids: np.ndarray, light: float = 0.0, noise: float = 0.0) -> Tensor:
    """Faces (t, 32, 64, 3) whose eyes are dark where they are open and as skin where a lid is."""
    picture = torch.full((len(lids), 32, 64, 3), 150.0 + light)
    for t, lid in enumerate(lids):
        top = 11 + round(6 * float(lid))
        for x in (10, 42):
            picture[t, top:17, x : x + 12] -= 110
    picture += noise * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return picture.round().clamp(0, 255).to(torch.uint8)


def test_a_puppet_is_read_as_it_moves_and_a_copy_in_other_light_alike() -> None:
    reader = LidReader(frames(LIDS), POINTS, LIDS)
    for copy in (frames(LIDS), frames(LIDS, light=20, noise=6)):
        read = reader(copy)
        assert np.corrcoef(read, LIDS)[0, 1] > 0.97 and abs(read - LIDS).max() < 0.25
        assert blinks(read) == blinks(LIDS) == 2


@pytest.mark.parametrize(("depth", "count"), [(0.0, 0), (0.3, 0), (0.8, 2)])
def test_half_a_blink_is_none(depth: float, count: int) -> None:
    assert blinks(LidReader(frames(LIDS), POINTS, LIDS)(frames(depth * LIDS))) == count


def test_eyes_that_smear_for_long_do_not_blink() -> None:
    smeared = frames(LIDS * 0)
    smeared[10:30, 11:17] = frames(LIDS)[8:28, 11:17].float().mean((1, 2), keepdim=True).to(torch.uint8)
    assert blinks(LidReader(frames(LIDS), POINTS, LIDS)(smeared)) == 0


def test_without_open_and_shut_eyes_nothing_is_known() -> None:
    still = np.zeros(TIMES)
    reader = LidReader(frames(still), POINTS, still)
    assert not reader.known and np.isnan(reader(frames(LIDS))).all()
