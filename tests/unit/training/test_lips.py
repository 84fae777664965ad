"""The lips stage: a relation to find, clips of many lengths, what it writes and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.networks.checkpoint import read_header
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.load import load_model
from letstalk_core.networks.motion_channels import LIPS
from letstalk_research.commands.train import build_stage
from letstalk_research.training.config import Recipe
from letstalk_research.training.lips import LipsStage
from letstalk_research.training.loop import train

from .conftest import write_clip

CPU = torch.device("cpu")
MakeRecipe = Callable[..., Recipe]


def curves_of(audio: torch.Tensor) -> torch.Tensor:
    """A made-up relation: each curve is what one state says in its frame and the next, squeezed into 0..1."""
    first = audio[:, 0, : len(LIPS)].float()
    return (0.5 + 0.3 * (first + torch.cat([first[1:], first[-1:]])) / 2).clamp(0, 1)


def make_clip(folder: Path, name: str, frames: int, split: str = "train") -> None:
    """A clip whose lips follow its audio states; their channels are in another order, among others."""
    path = folder / str(write_clip(folder, name, split=split, frames=frames).latents)
    tensors = load_file(path)
    tensors["motion"] = torch.cat([torch.rand(frames, 1), curves_of(tensors["audio"]).flip(1)], 1).half()
    tensors["portrait_motion"] = torch.zeros(2, 5).half()
    save_file(tensors, path, metadata={"image_size": "32", "motion": ",".join(["yaw", *LIPS[::-1]])})


@pytest.fixture
def lips_recipe(make_recipe: MakeRecipe, tmp_path: Path) -> MakeRecipe:
    folder = tmp_path / "lips_data"
    for i in range(12):
        make_clip(folder, f"speech{i}", frames=10 + i, split="val" if i < 2 else "train")

    def make(*overrides: str) -> Recipe:
        return make_recipe("lips", f"data.folder={folder}", *overrides)

    return make


def test_it_learns_what_moves_the_lips_and_writes_it(lips_recipe: MakeRecipe) -> None:
    options = ("loop.steps=80", "data.batch_size=8", "optimizer.lr=1e-2", "loop.ema_decay=0.9")
    stage = build_stage(lips_recipe(*options))
    before = stage.validate(CPU)
    (path,) = train(stage).exported
    assert path.name == "lips.safetensors" and read_header(path).metadata["letstalk.recipe"] == "lips"
    lips = load_model(path, "lips")
    assert isinstance(lips, Lips)
    assert isinstance(stage, LipsStage)
    stage.lips.load_state_dict(lips.state_dict())
    stage.lips.eval()
    after = stage.validate(CPU)
    assert after["mse"] < 0.3 * before["mse"]
    assert min(after[name] for name in ("jaw", "wide_round", "teeth")) > 0.8


def test_the_networks_scale_is_that_of_the_training_states(lips_recipe: MakeRecipe) -> None:
    recipe = lips_recipe()
    stage = build_stage(recipe)
    assert isinstance(stage, LipsStage)
    files = sorted((Path(recipe.data.folder) / "latents").glob("speech*.safetensors"))
    training = [f for f in files if f.stem not in ("speech0", "speech1")]
    states = torch.cat([load_file(f)["audio"] for f in training]).float().flatten(1)
    torch.testing.assert_close(stage.lips.mean, states.mean(0))
    torch.testing.assert_close(stage.lips.std, states.std(0))


def test_batches_hold_whole_clips_with_their_ends_repeated(lips_recipe: MakeRecipe) -> None:
    recipe = lips_recipe("data.batch_size=6")
    stage = build_stage(recipe)
    assert isinstance(stage, LipsStage)
    batch, again = (stage.plan_batch(3)() for _ in range(2))
    assert all(torch.equal(batch[k], again[k]) for k in batch)
    margin, clips = stage.lips.window // 2, {}
    for file in (Path(recipe.data.folder) / "latents").glob("speech*.safetensors"):
        audio = load_file(file)["audio"]
        clips[len(audio)] = audio
    for states, curves, known in zip(batch["states"], batch["curves"], batch["known"], strict=True):
        length = int(known.sum())
        assert torch.equal(known, (torch.arange(len(known)) < length).float())
        audio = clips[length]
        assert torch.equal(states[margin : margin + length], audio)
        assert torch.equal(states[:margin], audio[:1].expand(margin, -1, -1))
        assert torch.equal(states[margin + length :], audio[-1:].expand(len(states) - margin - length, -1, -1))
        torch.testing.assert_close(curves[:length], curves_of(audio), atol=1e-3, rtol=0)


def test_frames_behind_a_clips_end_count_for_nothing(lips_recipe: MakeRecipe) -> None:
    stage = build_stage(lips_recipe("data.batch_size=6"))
    batch = stage.plan_batch(3)()
    with torch.no_grad():
        loss = stage.module(batch)[0]
        spoilt = torch.where(batch["known"][..., None] > 0, batch["curves"], 9.0)
        assert batch["known"].min() == 0
        torch.testing.assert_close(stage.module({**batch, "curves": spoilt})[0], loss)


def test_shut_lips_and_changes_count_as_the_recipe_says(lips_recipe: MakeRecipe) -> None:
    def loss(*overrides: str, curves: torch.Tensor) -> float:
        stage = build_stage(lips_recipe(*overrides))
        states = torch.zeros(1, 4 + 12, 2, 8)
        with torch.no_grad():
            return float(stage.module({"states": states, "curves": curves, "known": torch.ones(1, 4)})[0])

    plain, shut = ("objective.change_weight=0.0", "objective.shut_weight=0.0"), torch.zeros(1, 4, 4)
    assert loss(plain[0], "objective.shut_weight=2.0", curves=shut) == pytest.approx(3 * loss(*plain, curves=shut))
    jump = torch.tensor([0.0, 0.0, 1.0, 1.0])[None, :, None].expand(1, 4, 4)  # the same states in every frame
    changes = loss(plain[1], "objective.change_weight=1.0", curves=jump) - loss(*plain, curves=jump)
    assert changes == pytest.approx(1 / 3, abs=1e-5)


def test_data_that_cannot_teach_it_is_refused(lips_recipe: MakeRecipe) -> None:
    recipe = lips_recipe("model.layers=3")
    with pytest.raises(ConfigError, match=r"model.layers=3.*have 2 layers of 8"):
        build_stage(recipe)
    for path in (Path(recipe.data.folder) / "latents").iterdir():  # clips that know the jaw alone
        save_file(load_file(path), path, metadata={"image_size": "32", "motion": "yaw,a,b,c,jaw"})
    with pytest.raises(MediaError, match="does not say how wide, round, teeth move"):
        build_stage(lips_recipe())
