"""Rows of a puppet's face: lips by the sound, everything else as told, from any frame on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from letstalk_core.generate.face_motion import FaceMotion, Hearing
from letstalk_core.media.audio.features import AudioFeatures
from letstalk_core.networks.configs import LipsConfig
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.motion_channels import LIPS, MOTION
from letstalk_core.sampling.motion import Movement

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
