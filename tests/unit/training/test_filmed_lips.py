"""One person's lips: the scale of a mouth, a relation to find in films, what stays, clips of many lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from letstalk_core.errors import MediaError
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.load import DEMO_FOLDER
from letstalk_core.networks.motion_channels import LIPS
from letstalk_research.training import filmed_lips
from letstalk_research.training.config import LipsRecipe, Recipe
from letstalk_research.training.filmed_lips import FilmedLipsStage, MouthScale, filmed, read_scale
from letstalk_research.training.loop import train

from .conftest import write_clip

CPU = torch.device("cpu")
MakeRecipe = Callable[..., Recipe]
SCALE = MouthScale(torch.linspace(0.02, 0.42, 5), torch.linspace(0.5, 0.9, 5))
PORTRAIT = torch.zeros(8, 8, 3, dtype=torch.uint8)


def test_the_scale_of_a_portrait_turns_what_is_read_of_its_puppet_round() -> None:
    scale = read_scale(load_portrait(DEMO_FOLDER / "portraits" / "eva.jpg"))
    for read in (scale.opening, scale.width):
        assert (read.diff() >= 0).all() and read[-1] > read[0] + 0.1
    middle = len(scale.opening) // 2
    curves = scale.curves(scale.opening[[0, middle, -1]], scale.width[[0, middle, -1]])
    torch.testing.assert_close(curves, torch.tensor([[0, -1], [0.5, 0], [1, 1]]).float(), atol=0.02, rtol=0)
    flat = MouthScale(torch.tensor([0.0, 0.0, 0.0, 0.1]), torch.tensor([0.5, 0.6, 0.7, 0.8]))
    assert flat.curves(torch.tensor(0.0), torch.tensor(0.5)).tolist() == [0, -1]  # jaws too small to read are shut
    assert scale.curves(torch.tensor(9.0), torch.tensor(-9.0)).tolist() == [1, -1]  # beyond all puppets


def make_clip(folder: Path, name: str, frames: int, split: str) -> None:
    """A clip whose mouth follows two of its audio states."""
    path = folder / str(write_clip(folder, name, split=split, frames=frames).latents)
    tensors = load_file(path)
    said = tensors["audio"][:, 0, :2].float().tanh()
    opening, width = 0.22 + 0.18 * said[:, :1], 0.7 + 0.18 * said[:, 1:]
    tensors["motion"] = torch.cat([torch.rand(frames, 1), opening, width], 1).half()
    tensors["portrait_motion"] = torch.zeros(2, 3).half()
    save_file(tensors, path, metadata={"image_size": "32", "motion": "yaw,opening,width"})


@pytest.fixture
def lips_recipe(make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRecipe:
    monkeypatch.setattr(filmed_lips, "read_scale", lambda portrait: SCALE)
    folder = tmp_path / "films"
    for i in range(12):
        make_clip(folder, f"film{i}", frames=10 + i, split="val" if i < 2 else "train")

    def make(*overrides: str) -> Recipe:
        recipe = make_recipe("lips", "model.encoder_dim=8")
        assert isinstance(recipe, LipsRecipe)
        torch.manual_seed(0)
        lips = Lips(recipe.model)
        lips.init_weights()
        path = tmp_path / "base.safetensors"
        save_checkpoint(path, {"lips": (recipe.model, lips.state_dict())})
        return make_recipe("lips", "model.encoder_dim=8", f"data.folder={folder}", f"loop.init={path}", *overrides)

    return make


def stage_of(recipe: Recipe) -> FilmedLipsStage:
    assert isinstance(recipe, LipsRecipe)
    return FilmedLipsStage(recipe, PORTRAIT)


def test_it_learns_the_films_mouth_and_keeps_the_rest(lips_recipe: MakeRecipe) -> None:
    stage = stage_of(lips_recipe("loop.steps=90", "data.batch_size=8", "optimizer.lr=1e-2", "loop.ema_decay=0.9"))
    before, batch = stage.validate(CPU), stage.plan_batch(1)()
    states = batch["states"].float()
    with torch.no_grad():
        teeth = stage.lips.curves(states)[..., LIPS.index("teeth")]
    (path,) = train(stage).exported
    stage.lips.load_state_dict({k.removeprefix("lips."): v.float() for k, v in load_file(path).items()})
    stage.lips.eval()
    after = stage.validate(CPU)
    assert min(after.values()) > 0.7 > max(before.values())
    with torch.no_grad():
        changed = stage.lips.curves(states)
    inside = batch["known"] > 0
    assert (changed[..., LIPS.index("teeth")] - teeth)[inside].abs().mean() < 0.1
    assert (filmed(changed) - batch["filmed"])[inside].abs().mean() < 0.15


def test_frames_behind_a_clips_end_count_for_nothing(lips_recipe: MakeRecipe) -> None:
    stage = stage_of(lips_recipe("data.batch_size=6"))
    batch = stage.plan_batch(3)()
    with torch.no_grad():
        loss = stage.module(batch)[0]
        spoilt = torch.where(batch["known"][..., None] > 0, batch["filmed"], 9.0)
        assert batch["known"].min() == 0
        torch.testing.assert_close(stage.module({**batch, "filmed": spoilt})[0], loss)


def test_clips_that_know_no_mouth_are_refused(lips_recipe: MakeRecipe, data_folder: Path) -> None:
    with pytest.raises(MediaError, match="does not say how opening, width move"):
        stage_of(lips_recipe(f"data.folder={data_folder}"))
