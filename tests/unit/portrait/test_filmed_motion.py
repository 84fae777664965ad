"""Motion read from frames: against pictures moved by known amounts, and drawn faces of known movement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError, FaceNotFoundError
from letstalk_core.media.filmed_motion import FilmedFaces, FilmedMotion, read_faces, read_motion
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.motion_channels import MOVEMENTS
from letstalk_research.data.synthetic.faces import render
from letstalk_research.data.synthetic.identity import sample_identity
from letstalk_research.data.synthetic.motion import MOTION

from .conftest import PORTRAITS, moved

GREY = torch.full((256, 256, 3), 128, dtype=torch.uint8)


def channel(motion: FilmedMotion, name: str) -> Tensor:
    return motion.rows[:, MOVEMENTS.index(name)]


def test_a_face_that_moves_in_the_picture_is_read_in_its_widths_and_radians(portrait: Tensor) -> None:
    ways = torch.linspace(-0.06, 0.06, 9).tolist()
    across = read_motion([moved(portrait, x=way, y=way / 2) for way in ways], portrait=portrait)
    middle = slice(2, 7)  # the average over time is shorter at the ends
    assert channel(across, "shift_x")[middle].numpy() == pytest.approx(ways[middle], abs=0.012)
    assert channel(across, "shift_y")[middle].numpy() == pytest.approx([w / 2 for w in ways[middle]], abs=0.012)
    turns = torch.linspace(-0.2, 0.2, 9).tolist()
    leaning = read_motion([moved(portrait, roll=turn) for turn in turns], portrait=portrait)
    assert channel(leaning, "roll")[middle].numpy() == pytest.approx(turns[middle], abs=0.05)
    sizes = torch.linspace(0.85, 1.15, 9).tolist()
    nearing = read_motion([moved(portrait, scale=size) for size in sizes], portrait=portrait)
    assert channel(nearing, "scale")[middle].numpy() == pytest.approx([s - 1 for s in sizes[middle]], abs=0.05)


def test_a_drawn_face_that_turns_and_blinks_is_read_so() -> None:
    asked = np.zeros((24, len(MOTION)), np.float32)
    asked[:, MOTION.index("scale")] = 1.0
    wave = np.sin(np.arange(24) / 23 * 2 * np.pi)
    asked[:, MOTION.index("yaw")], asked[:, MOTION.index("pitch")] = 0.8 * wave, 0.5 * np.roll(wave, 6)
    asked[10:13, MOTION.index("blink")] = (0.6, 1.0, 0.6)
    asked[16:22, MOTION.index("jaw")] = 0.8
    found = read_motion(render(sample_identity(np.random.default_rng(5)), asked, size=256))
    for name in ("yaw", "pitch", "blink"):
        assert np.corrcoef(channel(found, name), asked[:, MOTION.index(name)])[0, 1] > 0.8, name
    assert np.corrcoef(found.opening, asked[:, MOTION.index("jaw")])[0, 1] > 0.8
    assert not channel(found, "brow").any() and not channel(found, "gaze_y").any()  # not readable


def test_shots_are_told_apart_and_each_is_about_its_own_look(portrait: Tensor) -> None:
    another = load_portrait(PORTRAITS[2])
    faces = read_faces([portrait] * 4 + [another] * 3 + [GREY] * 2)
    assert faces.cuts == (4, 7) and [list(shot) for shot in faces.shots] == [[0, 1, 2, 3], [4, 5, 6], [7, 8]]
    assert faces.seen.tolist() == [True] * 7 + [False] * 2
    assert faces.motion().rows.abs().max() < 0.12  # reads a little else where it looks a little elsewhere
    about_another = faces.motion(read_faces([another]).usual()).rows.abs()
    assert 2 * about_another[4:7].max() < about_another[:4].max() > 0.04


def test_frames_without_a_face_are_bridged_within_their_shot(portrait: Tensor) -> None:
    seen = read_faces([portrait, moved(portrait, x=0.06)])
    nothing = torch.full_like(seen.measures[:1], torch.nan)
    measures = torch.cat([seen.measures[:1], nothing, seen.measures[1:], nothing])
    faces = FilmedFaces(measures, torch.tensor([0.9, 0.0, 0.9, 0.0]), (), seen.size)
    shift = faces.motion(measures[0], smoothing=0.0).rows[:, MOVEMENTS.index("shift_x")]
    assert shift[0] == 0 and shift[2] > 0.04 and shift[3] == shift[2]
    assert shift[1] == pytest.approx(float(shift[2]) / 2, abs=2e-3)


def test_nothing_to_read_is_one_line(portrait: Tensor) -> None:
    with pytest.raises(ConfigError, match="no frames"):
        read_motion([])
    with pytest.raises(FaceNotFoundError, match="no face"):
        read_motion([portrait], portrait=GREY)
    nothing = read_motion([GREY] * 3)
    assert not nothing.rows.any() and not nothing.confidence.any()
