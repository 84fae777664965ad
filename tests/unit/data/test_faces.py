import dataclasses

import numpy as np
import pytest
import torch

from letstalk_core.errors import ConfigError
from letstalk_research.data.synthetic.faces import FRAME_SIZE, REGIONS, regions, render
from letstalk_research.data.synthetic.identity import HAIR_STYLES, SKIN_TONES, Identity, sample_identity
from letstalk_research.data.synthetic.motion import MOTION


def still(count: int = 1, **changes: float) -> np.ndarray:
    motion = np.zeros((count, len(MOTION)), np.float32)
    motion[:, MOTION.index("scale")] = 1.0
    for name, value in changes.items():
        motion[:, MOTION.index(name)] = value
    return motion


def crop(frame: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    x0, y0, x1, y1 = (int(v) for v in box)
    return frame[y0:y1, x0:x1].float()


def person(seed: int = 0, **changes: object) -> Identity:
    return dataclasses.replace(sample_identity(np.random.default_rng(seed)), **changes)


def test_the_same_seed_draws_the_same_person() -> None:
    assert torch.equal(render(person(5), still()), render(person(5), still()))
    assert not torch.equal(render(person(5), still()), render(person(6), still()))


def test_many_people_in_one_call_look_as_they_do_alone() -> None:
    people = [person(seed) for seed in range(6)]
    motion = still(6, jaw=0.5, yaw=0.2)
    together = render(people, motion)
    for i, one in enumerate(people):
        assert torch.equal(together[i], render(one, motion[i : i + 1])[0])


def test_every_hair_style_and_skin_tone_is_drawn_by_chance() -> None:
    rng = np.random.default_rng(0)
    people = [sample_identity(rng) for _ in range(200)]
    assert {p.hair_style for p in people} == set(HAIR_STYLES)
    assert {p.skin_group for p in people} == set(range(len(SKIN_TONES)))
    for switch in ("glasses", "beard", "lashes", "v_neck", "spot"):
        assert {getattr(p, switch) for p in people} == {True, False}


@pytest.mark.parametrize(
    "move", ["jaw", "wide", "round", "blink", "gaze_x", "brow", "yaw", "pitch", "roll", "smile"]
)
def test_every_motion_is_visible(move: str) -> None:
    who = person(1, glasses=False)
    still_frame, moved = render(who, np.concatenate([still(jaw=0.3), still(**{"jaw": 0.3, move: 0.9})])).float()
    assert (still_frame - moved).abs().amax() > 40


def test_moves_of_the_mouth_stay_in_the_mouth_box() -> None:
    who = person(2, beard=False)
    motion = np.concatenate([still(), still(round=1.0, teeth=1.0, jaw=0.2)])
    closed, rounded = render(who, motion).float()
    box = regions(who, motion)[1, 0]
    outside = (closed - rounded).abs().amax(-1)
    outside[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = 0
    assert outside[: int(box[1])].amax() < 8  # the chin below may move, nothing above


def test_closed_lips_stay_closed_whatever_else_the_mouth_does() -> None:
    who = person(3, beard=False)
    frames = render(who, np.concatenate([still(), still(teeth=1.0), still(jaw=0.9)]))
    boxes = regions(who, still(3))
    dark = [float((crop(f, b[0]).amax(-1) < 70).float().mean()) for f, b in zip(frames, boxes, strict=True)]
    assert dark[2] > 0.04 and dark[1] < 0.02 and dark[0] < 0.02


def test_boxes_lie_inside_the_picture_and_follow_the_head() -> None:
    who = person(4)
    boxes = regions(who, np.concatenate([still(), still(shift_x=0.1), still(yaw=1.0, pitch=1.0, roll=0.3)]))
    assert boxes.shape == (3, len(REGIONS), 4)
    assert boxes.min() >= 0 and boxes.max() <= FRAME_SIZE
    assert ((boxes[1, :, 0] - boxes[0, :, 0]) - 0.1 / 2 * FRAME_SIZE).abs().max() <= 1
    mouth, left, right = boxes[0].tolist()
    assert left[0] < right[0] and mouth[1] > left[1]  # eyes side by side, the mouth below


def test_wrong_motion_is_refused_with_its_shape() -> None:
    with pytest.raises(ConfigError, match=r"\(2, 3\), needs \(frames, 15\)"):
        render(person(), np.zeros((2, 3), np.float32))
    with pytest.raises(ConfigError, match="2 identities for 3 frames"):
        render([person(0), person(1)], still(3))
