"""The lips stage, on hums whose curves are known: what it learns, what it measures, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from letstalk_core.errors import ConfigError
from letstalk_core.networks.checkpoint import read_header
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.load import load_model
from letstalk_core.networks.motion_channels import LIPS
from letstalk_research.commands.train import build_stage
from letstalk_research.training.audio import AudioStage
from letstalk_research.training.config import Recipe
from letstalk_research.training.lips import LipsStage
from letstalk_research.training.loop import train

CPU = torch.device("cpu")
MakeRecipe = Callable[..., Recipe]


def stage_of(recipe: Recipe) -> LipsStage:
    stage = build_stage(recipe)
    assert isinstance(stage, LipsStage)
    return stage


def test_it_learns_what_moves_the_lips_and_writes_it(make_recipe: MakeRecipe) -> None:
    stage = stage_of(
        make_recipe("lips", "loop.steps=40", "data.batch_size=8", "optimizer.lr=1e-2", "loop.ema_decay=0.9")
    )
    before = stage.validate(CPU)
    (path,) = train(stage).exported
    assert path.name == "lips.safetensors" and read_header(path).metadata["letstalk.recipe"] == "lips"
    lips = load_model(path, "lips")
    assert isinstance(lips, Lips)
    stage.lips.load_state_dict(lips.state_dict())
    stage.lips.eval()
    after = stage.validate(CPU)
    assert after["mse"] < 0.3 * before["mse"] and after["jaw"] > 0.9


def test_lips_learn_their_own_rules_from_the_speech_of_the_audio_stage(make_recipe: MakeRecipe) -> None:
    """What one stage has spoken is not spoken again, and each has its rules' curves of it, made or read."""
    options = ("objective.utterances=2", "data.validation_items=2", "loop.seed=4")
    audio = build_stage(make_recipe("audio", *options))
    assert isinstance(audio, AudioStage)
    made = stage_of(make_recipe("lips", *options)).speech.items
    files = {p: p.stat().st_mtime_ns for p in (Path(audio.recipe.data.folder) / "utterances").iterdir()}
    again = stage_of(make_recipe("lips", *options)).speech.items
    assert files == {p: p.stat().st_mtime_ns for p in files}
    for (sound, drawn), (same, lips), (_, read) in zip(audio.speech.items, made, again, strict=True):
        assert torch.equal(sound, same) and torch.equal(lips, read)
        assert lips.shape == (len(drawn), len(LIPS)) and not torch.equal(lips, drawn[:, : len(LIPS)])


def test_speech_of_before_there_were_other_rules_is_spoken_again(make_recipe: MakeRecipe) -> None:
    stage = stage_of(make_recipe("lips"))
    folder = Path(stage.recipe.data.folder) / "utterances"
    for path in folder.iterdir():
        save_file(load_file(path), path)  # without the phones
    again = stage_of(make_recipe("lips"))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(stage.speech.items, again.speech.items, strict=True))
    assert all(a.shape[1] == len(LIPS) for _, a in again.speech.items)


def test_a_batch_is_what_the_network_hears_of_its_crops(make_recipe: MakeRecipe) -> None:
    """Curves belong to the frames in the middle of the states; the same seed gives the same batch."""
    stage = stage_of(make_recipe("lips"))
    batch, again = (stage.plan_batch(3)() for _ in range(2))
    assert all(torch.equal(batch[k], again[k]) for k in batch)
    crops, margin = stage.speech.crops(torch.Generator().manual_seed(3)), stage.lips.window // 2
    assert torch.equal(batch["curves"], crops["curves"].float()[:, margin:-margin])
    assert batch["curves"].shape[-1] == len(LIPS)
    assert batch["states"].shape[1] == batch["curves"].shape[1] + 2 * margin


@pytest.mark.parametrize(("changes", "shut"), [(0.0, 0.0), (1.0, 0.0), (0.0, 2.0)])
def test_the_loss_is_as_the_recipe_says(make_recipe: MakeRecipe, changes: float, shut: float) -> None:
    stage = stage_of(make_recipe("lips", f"objective.change_weight={changes}", f"objective.shut_weight={shut}"))
    states, jump = torch.zeros(1, 4 + stage.lips.window - 1, 2, 16), torch.tensor([0.0, 0.0, 1.0, 1.0])
    true = jump[None, :, None].expand(1, 4, 4)  # the same states in every frame
    with torch.no_grad():
        found = stage.lips.curves(states)[0, 0]
        level = ((found[:4] - true[0]) ** 2).mean()
        meeting = torch.nn.functional.softplus(found[4] * torch.tensor([-1, -1, 1, 1])).mean()
        loss = stage.module({"states": states, "curves": true})[0]
    torch.testing.assert_close(loss, level + changes / 3 + shut * meeting)


def test_lips_that_meet_are_counted_within_a_frame_and_not_in_pauses(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(make_recipe("lips"))
    found, true = torch.ones(40, 4), torch.ones(40, 4)
    true[5:7], true[15:16], true[25:35] = 0, 0, 0  # two that meet in speech, and a pause
    found[7:8], found[20:21], found[25:35] = 0, 0, 0  # one met a frame late, one that is not meant, the pause
    monkeypatch.setattr(stage.speech, "measure", lambda read: {"": [(found, true)]})
    values = stage.validate(CPU)
    assert (values["met"], values["meant"]) == pytest.approx((1 / 3, 1 / 2))


def test_an_encoder_of_another_shape_is_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match=r"model.layers=3, encoder_dim=16: .* has 2 layers of 16"):
        build_stage(make_recipe("lips", "model.layers=3"))
