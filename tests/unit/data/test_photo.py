"""Photo puppets on drawn stills: what moves, what stays, and that flow and landmarks are those of the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.media.puppet import topology as mesh
from letstalk_core.media.puppet.geometry import RadialBasis, curve_height, grow, invert
from letstalk_core.media.puppet.puppet import Portraits, Puppets, make_puppets
from letstalk_core.media.puppet.render import EXTRAS, Pose, render
from letstalk_core.networks import face_points as numbers
from letstalk_research.data.clips import open_clip
from letstalk_research.data.manifest import Manifest
from letstalk_research.data.photo.casting import cast, make_people
from letstalk_research.data.photo.clips import choose_person, photo_clip, synthesize_photos
from letstalk_research.data.photo.degrade import Wear, apply_wear
from letstalk_research.data.photo.people import Framing, frame_stills, mirrored
from letstalk_research.data.photo.stills import load_stills
from letstalk_research.data.photo.tongue import tongue_curves
from letstalk_research.data.photo.truth import flow, landmarks, regions
from letstalk_research.data.synthetic.dataset import DrawnClip
from letstalk_research.data.synthetic.identity import sample_identity
from letstalk_research.data.synthetic.motion import MOTION
from letstalk_research.data.synthetic.speech import Phoneme, Utterance, silence

from .photo_faces import face_points, write_stills

SIZE = 128


def pose(**values: float) -> Tensor:
    """One frame (1, 1, 15) at rest but for the named curves."""
    motion = torch.zeros(1, 1, len(MOTION))
    motion[..., MOTION.index("scale")] = 1
    for name, value in values.items():
        motion[..., MOTION.index(name)] = value
    return motion


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stills(tmp_path_factory.mktemp("stills"))


@pytest.fixture(scope="module")
def puppets(stills: Path) -> Puppets:
    return make_puppets(frame_stills(load_stills(stills)[:1], [Framing(0.56)], texture=200), size=SIZE)


def frame(puppets: Puppets, **values: float) -> Tensor:
    return render(Pose(puppets, pose(**values)), size=SIZE)[0, 0]


def points(puppets: Puppets, **values: float) -> Tensor:
    return landmarks(Pose(puppets, pose(**values)))[0, 0]


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * ((a - b) ** 2).mean().log10())


def opening(p: Tensor) -> float:
    return float((p[list(numbers.LOWER_INNER), 1] - p[list(numbers.UPPER_INNER), 1]).max())


def test_at_rest_the_portrait_comes_back(puppets: Puppets) -> None:
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    at = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[None] / 1.2
    still = F.grid_sample(puppets.portraits.texture, at, align_corners=False)[0]
    assert psnr(frame(puppets), still) > 32
    assert torch.allclose(points(puppets), puppets.portraits.points[0, :, :2], atol=1e-4)


def test_closed_lips_stay_closed_whatever_else_the_mouth_does(puppets: Puppets) -> None:
    for values in ({"teeth": 1.0}, {"wide": 1.0, "teeth": 1.0}, {"round": 1.0}, {"smile": 0.6}):
        assert opening(points(puppets, **values)) < 0.01


def test_the_jaw_opens_the_mouth_and_little_above_it_moves(puppets: Puppets) -> None:
    rest, half, wide = (points(puppets, jaw=jaw) for jaw in (0.0, 0.5, 1.0))
    assert opening(rest) + 0.02 < opening(half) < opening(wide) - 0.02
    assert float((wide - rest)[numbers.CHIN, 1]) > 0.02
    brows = list(mesh.BROWS)
    assert float((wide - rest)[brows].abs().max()) < 0.005
    inside = (rest[list(mesh.MOUTH)].mean(0) + 1) / 2 * SIZE + torch.tensor([0.0, 3.0])
    x, y = inside.int().tolist()
    assert float(frame(puppets, jaw=1.0)[:, y, x].mean()) < 0.75 * float(frame(puppets)[:, y, x].mean())  # dark


def test_lips_round_and_spread(puppets: Puppets) -> None:
    def width(p: Tensor) -> float:
        return float(p[mesh.MOUTH[1], 0] - p[mesh.MOUTH[0], 0])

    assert width(points(puppets, round=1.0)) < 0.8 * width(points(puppets))
    assert width(points(puppets, wide=1.0)) > 1.1 * width(points(puppets))


def test_a_blink_shuts_the_eyes(puppets: Puppets) -> None:
    eye = mesh.EYES[0]

    def height(p: Tensor) -> float:
        return float(p[eye.lower[3], 1] - p[eye.upper[3], 1])

    rest, half, shut = (points(puppets, blink=b) for b in (0.0, 0.5, 1.0))
    assert height(shut) < 0.25 * height(rest)
    assert 0.3 * height(rest) < height(half) < 0.8 * height(rest)
    x, y = ((rest[eye.iris[0]] + 1) / 2 * SIZE).int().tolist()
    open_, closed = (frame(puppets, blink=b)[:, y - 1 : y + 2, x - 4 : x + 5] for b in (0.0, 1.0))
    assert float(closed.amin((1, 2))[0]) > float(open_.amin((1, 2))[0]) + 0.1  # skin where the iris was


def test_the_head_turns_and_the_background_stays(puppets: Puppets) -> None:
    rest = points(puppets)
    turned = points(puppets, yaw=0.4)
    assert 0.02 < float((turned - rest)[numbers.NOSE_TIP, 0]) < 0.2  # the nose to the right
    assert float((points(puppets, pitch=0.25) - rest)[numbers.NOSE_TIP, 1]) > 0.01  # and down
    moved = (frame(puppets, yaw=0.4, shift_x=0.02) - frame(puppets)).abs().amax(0)
    assert float(moved.max()) > 0.2
    assert float(moved[: SIZE // 2, : SIZE // 10].max()) < 0.02
    assert float(moved[: SIZE // 2, -SIZE // 10 :].max()) < 0.02


@pytest.mark.parametrize("values", [{"yaw": 0.4, "smile": 0.4}, {"roll": 0.04, "pitch": -0.2}, {"brow": 0.3}])
def test_the_flow_fetches_the_frame_from_the_portrait(puppets: Puppets, values: dict[str, float]) -> None:
    portrait, moved = Pose(puppets, pose(shift_x=0.01, yaw=-0.1)), Pose(puppets, pose(**values))
    there = flow(moved, portrait)
    assert there.shape == (1, 1, 1, 2, 64, 64)
    fine = F.interpolate(there[0, 0], size=(SIZE, SIZE), mode="bilinear")[0].permute(1, 2, 0)
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    at = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1) + 2 * fine
    still, truth = (render(p, size=SIZE)[0] for p in (portrait, moved))
    fetched = F.grid_sample(still, at[None], align_corners=False, padding_mode="border")
    assert psnr(fetched, truth) > max(27.0, psnr(still, truth) + 6)


def test_frames_of_a_batch_are_those_of_each_alone(stills: Path) -> None:
    two = frame_stills(load_stills(stills)[:2], [Framing(0.5), Framing(0.62, 0.05, 0.1)], texture=160)
    motion = torch.cat([pose(jaw=0.6, blink=1.0), pose(yaw=0.3, gaze_x=0.3)], 1)
    both = Pose(make_puppets(two, size=64), motion.expand(2, -1, -1))
    for i in range(2):
        one = Pose(make_puppets(Portraits(two.texture[i : i + 1], two.points[i : i + 1]), size=64), motion)
        assert torch.allclose(render(both, size=64)[i], render(one, size=64)[0], atol=2e-3)
        assert torch.allclose(landmarks(both)[i], landmarks(one)[0], atol=1e-4)
    boxes = regions(landmarks(both), 64)
    assert boxes.shape == (2, 2, 3, 4) and bool((boxes[..., 2:] > boxes[..., :2]).all())
    assert bool((boxes[:, :, 1, 2] < boxes[:, :, 2, 0] + 8).all())  # the left eye of the picture comes first


def test_a_mirrored_person_is_the_mirror_image(puppets: Puppets) -> None:
    assert [mesh.MIRROR[i] for i in mesh.MIRROR] == list(range(numbers.POINTS))
    twin = mirrored(puppets.portraits)
    assert torch.equal(twin.texture.flip(-1), puppets.portraits.texture)
    eyes = twin.points[0, [e.corners[0] for e in mesh.EYES], 0]
    assert float(eyes[0]) < float(eyes[1])


def test_parted_lips_close_and_can_be_kept_in_the_portrait(stills: Path) -> None:
    p = frame_stills(load_stills(stills)[:1], [Framing(0.56)], texture=200)
    parted = torch.from_numpy(face_points(gap=0.06))
    closed = torch.from_numpy(face_points())
    unit = float(p.points[0, numbers.CHIN, 1] - p.points[0, mesh.TOP, 1]) / float(closed[152, 1] - closed[10, 1])
    p.points[0] += (parted - closed) * unit
    puppets = make_puppets(p, size=SIZE)
    extras = torch.zeros(1, 1, len(EXTRAS))
    kept = extras.clone()
    kept[..., EXTRAS.index("teeth_kept")] = 1
    assert opening(landmarks(Pose(puppets, pose(), extras))[0, 0]) < 0.01
    assert opening(landmarks(Pose(puppets, pose(), kept))[0, 0]) > 0.03


def test_held_out_people_never_take_part_in_training(stills: Path) -> None:
    train, held = load_stills(stills), load_stills(stills, held_out=True)
    assert {s.id for s in train} == {"train0", "train1", "train2"} and [s.id for s in held] == ["held0"]
    people = [choose_person(train, 0, "train", i) for i in range(60)]
    names = {part for p in people for part in p.name.split("+")}
    assert names == {"train0", "train1", "train2"}
    assert 0.6 < sum(p.donor is not None for p in people) / len(people) < 0.95
    assert all(p.donor is None or p.donor.id != p.host.id for p in people)
    val = [choose_person(held, 0, "val", i) for i in range(4)]
    assert {p.name for p in val} == {"held0"} and all(p.wear == Wear() for p in val)


def test_the_same_seed_makes_the_same_person(stills: Path) -> None:
    train = load_stills(stills)
    one, two, other = (cast(train, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert one == two != other
    a, b = (make_people([p], size=SIZE).portraits for p in (one, two))
    assert torch.equal(a.texture, b.texture) and torch.equal(a.points, b.points)


def clip(frames: int = 3) -> DrawnClip:
    motion = pose(jaw=0.5).expand(1, frames, -1)[0].numpy()
    still = pose(smile=0.1)[0].numpy()
    return DrawnClip(sample_identity(np.random.default_rng(0)), silence(1.0), motion, still.repeat(2, 0), 0)


def test_a_clip_has_all_that_training_needs(stills: Path) -> None:
    person = cast(load_stills(stills), np.random.default_rng(0))
    tensors = photo_clip(person, clip(), turn=1.0)
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    assert shapes["frames"] == (3, 256, 256, 3) and shapes["portraits"] == (2, 256, 256, 3)
    assert shapes["flow"] == (2, 3, 2, 64, 64)
    assert shapes["landmarks"] == (3, 478, 2) and shapes["portrait_landmarks"] == (2, 478, 2)
    assert shapes["regions"] == (3, 3, 4) and shapes["portrait_regions"] == (2, 3, 4)
    assert shapes["motion"] == (3, len(MOTION))


def test_folders_are_resumed_and_shared(stills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from letstalk_research.data.photo import clips

    monkeypatch.setattr(clips, "draw_clip", lambda *_, frames, **__: clip(frames))
    first = [r.id for r in synthesize_photos(tmp_path, stills, clips=3, frames=2, first=1, stride=2)]
    rest = [r.id for r in synthesize_photos(tmp_path, stills, clips=3, frames=2, drawn_every=3)]
    assert first == ["train-photo-0-000001"]
    assert rest == ["train-photo-0-000000", "train-0-000002"]
    for record in Manifest(tmp_path):
        assert open_clip(tmp_path, record).frames().shape == (2, 256, 256, 3)


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such folder"):
        load_stills(tmp_path / "nowhere")
    with pytest.raises(MediaError, match="--landmarks"):
        load_stills(tmp_path)
    write_stills(tmp_path / "held", train=0)
    with pytest.raises(MediaError, match="no picture has a usable face"):
        load_stills(tmp_path / "held")


def test_wear_changes_what_it_says() -> None:
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(apply_wear(picture, Wear()), picture, atol=1e-5)
    grey = apply_wear(picture, Wear(grey=True, noise=0.02))
    assert float((grey - grey.mean(0)).abs().max()) < 1e-4
    assert float(apply_wear(picture, Wear(blur=1.5)).std()) < 0.6 * float(picture.std())
    dark = torch.zeros(3, 64, 64)
    dark[:, 20:40, 20:40] = 1
    assert bool(apply_wear(dark, Wear(reduce=0.3, noise=0.05, quality=30)).isfinite().all())
    smooth = F.avg_pool2d(picture[None], 9, 1, 4)[0]
    fine, coarse = (psnr(apply_wear(smooth, Wear(quality=q)), smooth) for q in (90, 20))
    assert fine > coarse + 3 and coarse > 20
    assert torch.equal(apply_wear(picture, Wear(noise=0.1)), apply_wear(picture, Wear(noise=0.1)))


def test_the_tongue_rises_for_l_and_comes_out_for_th() -> None:
    sounds = (Phoneme("l", 0.0, 0.2), Phoneme("ɑː", 0.2, 0.6), Phoneme("θ", 0.6, 0.8), Phoneme("m", 0.8, 1.0))
    tip, out = tongue_curves(Utterance(np.zeros(16000, np.float32), sounds), 25, 25).T
    assert tip[2] == 1 and out[17] == 1
    assert tip[10] == out[10] == 0 and tip[23] == out[23] == 0


def test_interpolation_inversion_and_filling() -> None:
    generator = torch.Generator().manual_seed(0)
    at = torch.rand(1, 40, 2, generator=generator) * 2 - 1
    value = torch.stack([at[..., 0] * 0.3, at[..., 1].square()], -1)
    assert torch.allclose(RadialBasis(at, value, ridge=1e-6)(at), value, atol=1e-3)
    knots = torch.tensor([[[0.0, 1.0], [2.0, 3.0], [1.0, 0.0]]])
    assert curve_height(knots, torch.tensor([[0.5, 1.5, -9.0, 9.0]])).tolist() == [[0.5, 1.5, 1.0, 3.0]]
    field = torch.full((1, 1, 2, 8, 8), 0.1)
    place = torch.zeros(1, 1, 2, 2, 2)
    assert torch.allclose(invert(field, place), torch.full_like(place, -0.1), atol=1e-4)
    known = torch.zeros(1, 1, 16, 16)
    known[..., :4, :] = 1
    assert torch.allclose(grow(torch.full((1, 3, 16, 16), 0.3) * known, known), torch.tensor(0.3), atol=1e-4)
