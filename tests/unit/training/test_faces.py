"""Training of the networks that find faces: its pictures, and a run of a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.portrait.face_geometry import head_pose, upright_square
from letstalk_core.media.portrait.find import default_finder
from letstalk_core.networks.face_landmarks import CELL, FaceNetworks
from letstalk_core.networks.face_points import EYES, LIPS, NOSE_TIP
from letstalk_core.networks.load import load_model
from letstalk_research.data.drawn_points import drawn_points
from letstalk_research.data.face_heads import Shapes, load_heads, turn_head, write_drawn
from letstalk_research.data.face_pictures import FacePictures, cells_of, mirror_order
from letstalk_research.data.synthetic.identity import sample_identity
from letstalk_research.data.synthetic.motion import random_pose
from letstalk_research.evaluation.face_reader import LANDMARKS, landmark_positions
from letstalk_research.training.config import FacesRecipe
from letstalk_research.training.faces import FacesStage, add_norms, fold_norms
from letstalk_research.training.loop import train
from letstalk_research.training.recipe import load_recipe


@pytest.fixture(scope="module")
def mean() -> Tensor:
    return default_finder().networks.canonical


@pytest.fixture(scope="module")
def heads(mean: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve drawn heads."""
    folder = tmp_path_factory.mktemp("heads")
    basis = 0.02 * torch.randn(6, 478, 3, generator=torch.Generator().manual_seed(0))
    write_drawn(folder / "heads-drawn.safetensors", Shapes(mean, basis), 12, np.random.default_rng(0))
    return folder


@pytest.fixture
def pictures(heads: Path, mean: Tensor) -> FacePictures:
    return FacePictures(load_heads(heads), mirror_order(mean))


def test_points_of_drawn_people_are_where_the_evaluation_knows_them(mean: Tensor) -> None:
    rng = np.random.default_rng(1)
    person, pose = sample_identity(rng), random_pose(rng, 1)
    found = drawn_points(person, pose[0], 256, mean)
    known = dict(zip(LANDMARKS, landmark_positions(person, pose, 256)[0], strict=True))
    names = {
        33: "left eye outer",
        133: "left eye inner",
        362: "right eye inner",
        263: "right eye outer",
        1: "nose",
    }
    for point, name in names.items():
        assert found[point] == pytest.approx(known[name].tolist(), abs=1e-4)


def test_the_mirror_of_the_mesh_is_its_own_inverse_and_keeps_the_mean_face(mean: Tensor) -> None:
    order = mirror_order(mean)
    assert torch.equal(order[order], torch.arange(478))
    apart = (mean[order] * torch.tensor([-1.0, 1.0, 1.0]) - mean).abs().amax(1)
    assert (apart < 0.05).float().mean() > 0.97
    assert set(order[list(LIPS)].tolist()) == set(LIPS) and order[list(EYES[0])].tolist() == list(EYES[1])


@pytest.mark.parametrize("yaw", [-50.0, 40.0])
def test_a_turned_head_turns_its_points_and_its_picture(mean: Tensor, yaw: float) -> None:
    points = mean.double().numpy() * 40 + np.array([48.0, 52.0, 0.0])
    image = np.zeros((96, 96, 3), np.uint8)
    nose = points[NOSE_TIP, :2].round().astype(int)
    image[nose[1] - 3 : nose[1] + 4, nose[0] - 3 : nose[0] + 4] = 255
    turned, moved = turn_head(image, points, yaw, 0.0)
    assert float(head_pose(torch.from_numpy(moved), mean).yaw) == pytest.approx(yaw, abs=2)
    rows, columns = np.nonzero(turned[..., 0] > 200)
    assert abs(columns.mean() - moved[NOSE_TIP, 0]) < 5 and abs(rows.mean() - moved[NOSE_TIP, 1]) < 5


def test_faces_in_pictures_are_told_to_the_detector_at_their_middles(pictures: FacePictures) -> None:
    batch = pictures.whole(np.random.default_rng(0), 12, 128)
    assert batch["picture"].shape == (12, 3, 128, 128) and batch["picture"].abs().max() <= 1
    faces = batch["faces"]
    counts = faces.isfinite().all(-1).sum(1)
    assert counts.min() == 0 and counts.max() >= 1
    score, values, near = cells_of(faces, 128 // CELL)
    assert torch.equal((score == 1).flatten(1).sum(1), counts)
    for n, row, column in (score == 1).nonzero().tolist():
        middle = (torch.tensor([column, row]) + 0.5 + values[n, :2, row, column]) * CELL
        distance = (faces[n, :, :2] - middle).norm(dim=-1).nan_to_num(1e9)
        face = faces[n, int(distance.argmin())]
        assert distance.min() < 0.01 and near[n, row, column] == 1
        assert float(values[n, 2, row, column].exp() * CELL) == pytest.approx(float(face[2]), rel=1e-4)


def test_crops_are_upright_and_the_same_seed_makes_the_same(pictures: FacePictures) -> None:
    batch = pictures.crops(np.random.default_rng(0), 24, 64)
    again = pictures.crops(np.random.default_rng(0), 24, 64)
    assert all(torch.equal(batch[k].nan_to_num(7), again[k].nan_to_num(7)) for k in batch)
    face = batch["labels"][:, 0] == 1
    assert 0 < int((~face).sum()) < 24 and not batch["sure"][~face].any()
    centre, side, turn = upright_square(batch["points"][face])
    assert centre.abs().max() < 0.4 and turn.abs().max() < 0.6 and ((side > 0.9) & (side < 1.9)).all()


def recipe(heads: Path, run: Path, *more: str) -> FacesRecipe:
    values = [f'data.folder="{heads}"', f'loop.run="{run}"', "loop.steps=2", "loop.max_minutes=0"]
    values += ["data.batch_size=2", "data.validation_items=12", 'loop.device="cpu"', 'loop.precision="fp32"']
    values += ["objective.detector_side=64", "objective.components=4"]
    loaded = load_recipe("faces", "faces", [*values, *more])
    assert isinstance(loaded, FacesRecipe)
    return loaded


@pytest.mark.slow
def test_a_run_of_two_steps_writes_networks_that_load(heads: Path, tmp_path: Path) -> None:
    result = train(FacesStage(recipe(heads, tmp_path / "run")))
    (path,) = result.exported
    networks = load_model(path, "faces")
    assert result.step == 2 and path.stat().st_size <= 2_100_000
    assert networks.detector(torch.zeros(1, 3, 64, 96)).score.shape == (1, 8, 12)
    assert networks.mesh(torch.zeros(1, 3, 128, 128)).points.shape == (1, 478, 3)
    assert (tmp_path / "run" / "samples").is_dir() and networks.canonical.abs().max() > 0.5
    longer = train(FacesStage(recipe(heads, tmp_path / "run", "loop.steps=3")))
    assert longer.step == 3


def test_norms_are_folded_without_a_change(heads: Path, tmp_path: Path) -> None:
    made = recipe(heads, tmp_path)
    networks = FaceNetworks(made.model)
    add_norms(networks)
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(4, 3, 128, 128, generator=generator) * 2 - 1
    networks.train()
    for _ in range(3):  # statistics that are not those of new norms
        networks.mesh(picture)
        networks.detector(picture)
    networks.eval()
    plain = fold_norms(networks, made)
    with torch.no_grad():
        for one, other in zip(networks.mesh(picture), plain.mesh(picture), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
        for one, other in zip(networks.detector(picture), plain.detector(picture), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_a_folder_without_heads_or_portraits_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no heads"):
        load_heads(tmp_path)
    made = recipe(tmp_path / "heads", tmp_path / "run", f'objective.portraits="{tmp_path}"')
    with pytest.raises(ConfigError, match=r"portraits\.csv"):
        FacesStage(made)
