"""The carry stage: what it learns, what it leaves alone, and that a killed run goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.networks.carry import Carry
from letstalk_core.networks.load import load_model
from letstalk_research.commands.train import build_stage
from letstalk_research.data.clips import FrameSampler
from letstalk_research.data.manifest import Manifest
from letstalk_research.data.pairs import draw_pairs
from letstalk_research.training.carry import CarryStage, carry_quality
from letstalk_research.training.checkpoints import load_state
from letstalk_research.training.config import Recipe
from letstalk_research.training.loop import train

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def carry_recipe(make_recipe: MakeRecipe, tmp_path: Path) -> Callable[..., Recipe]:
    """Recipes for an autoencoder that has learned nothing."""
    folder = tmp_path / "autoencoder"
    train(build_stage(make_recipe("autoencoder", "loop.steps=1", f"loop.run={folder}")))

    def make(*overrides: str) -> Recipe:
        return make_recipe("carry", f'objective.autoencoder="{folder / "autoencoder.safetensors"}"', *overrides)

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = load_state(folder)
    assert state is not None
    return dict(state["module"])


def test_training_lowers_the_loss_and_writes_a_model(carry_recipe: MakeRecipe, tmp_path: Path) -> None:
    stage = build_stage(carry_recipe("loop.steps=12", "optimizer.lr=5e-3", "objective.latent_noise=0.0"))

    def loss() -> float:
        torch.manual_seed(1)
        with torch.no_grad():
            return float(stage.module(stage.plan_batch(3)())[0])

    untrained, before = loss(), stage.validate(torch.device("cpu"))
    result = train(stage)
    after = stage.validate(torch.device("cpu"))
    assert loss() < untrained
    assert after["plain_psnr"] == pytest.approx(before["plain_psnr"], abs=1e-4)  # the autoencoder stays
    assert all(math.isfinite(v) for v in after.values())
    carry = load_model(result.exported[0], "carry")
    assert isinstance(carry, Carry)
    assert result.exported[0].name == "carry.safetensors"


def test_a_killed_run_goes_on_to_the_same_weights(carry_recipe: MakeRecipe, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(build_stage(carry_recipe("loop.steps=4", f"loop.run={whole}")))
    train(build_stage(carry_recipe("loop.steps=2", "optimizer.flat=1.0", f"loop.run={parts}")))
    train(build_stage(carry_recipe("loop.steps=4", f"loop.run={parts}")))
    a, b = weights(whole), weights(parts)
    assert not [k for k in a if "autoencoder" in k]  # frozen, and not stored again and again
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_samples_are_drawn(carry_recipe: MakeRecipe, tmp_path: Path) -> None:
    build_stage(carry_recipe()).sample(tmp_path / "sample.png", torch.device("cpu"))
    assert (tmp_path / "sample.png").stat().st_size > 0


def test_init_starts_from_a_model(carry_recipe: MakeRecipe, tmp_path: Path) -> None:
    exported = train(build_stage(carry_recipe("loop.steps=1"))).exported[0]
    stage = build_stage(carry_recipe(f'loop.init="{exported}"', f"loop.run={tmp_path / 'next'}"))
    assert isinstance(stage, CarryStage)
    model = load_model(exported, "carry")
    assert all(torch.equal(stage.carry.state_dict()[k], v) for k, v in model.state_dict().items())


def test_without_an_autoencoder_nothing_starts(make_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match="autoencoder is empty"):
        make_recipe("carry")


def test_pairs_depend_on_the_seed_and_are_neighbours(data_folder: Path) -> None:
    sampler, records = FrameSampler(data_folder, image_size=32), Manifest(data_folder).select("train")

    def draw(seed: int, **keywords: Any) -> dict[str, torch.Tensor]:
        return draw_pairs(sampler, records, 6, torch.Generator().manual_seed(seed), **{"flip": True, **keywords})

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(first[k].nan_to_num(), again[k].nan_to_num()) for k in first)
    assert not torch.equal(first["frames"], other["frames"])
    clips = [sampler.clip(r).frames() for r in records]
    for pair in draw(3, flip=False)["frames"]:
        assert any(torch.equal(pair, clip[i : i + 2]) for clip in clips for i in range(len(clip) - 1))


def test_mirrored_pairs_have_mirrored_boxes(data_folder: Path) -> None:
    sampler, records = FrameSampler(data_folder, image_size=32), Manifest(data_folder).select("val")
    plain, mirrored = (
        draw_pairs(sampler, records, 8, torch.Generator().manual_seed(5), flip=flip) for flip in (False, True)
    )
    flipped = [i for i in range(8) if not torch.equal(plain["frames"][i], mirrored["frames"][i])]
    assert 0 < len(flipped) < 8
    for i in flipped:
        assert torch.equal(mirrored["frames"][i], plain["frames"][i].flip(-2))
        assert torch.equal(mirrored["portraits"][i], plain["portraits"][i].flip(-2))
        assert torch.equal(mirrored["regions"][i, 0, 0, [0, 2]], 32 - plain["regions"][i, 0, 0, [2, 0]])


def test_known_flow_points_to_the_portrait(data_folder: Path) -> None:
    record = Manifest(data_folder).select("train")[0]
    path = data_folder / record.clip
    flow = torch.rand(2, 6, 2, 64, 64, generator=torch.Generator().manual_seed(1)).half()
    save_file({**load_file(path), "flow": flow}, path)
    sampler = FrameSampler(data_folder, image_size=32)
    clip = sampler.clip(record)
    pairs = draw_pairs(sampler, [record], 12, torch.Generator().manual_seed(2), flip=False)
    known = [i for i in range(12) if bool(pairs["flow"][i].isfinite().all())]
    assert 0 < len(known) < 12  # the others have a frame as their reference
    for i in known:
        first = next(t for t in range(5) if torch.equal(clip.frames(t, 2), pairs["frames"][i]))
        which = next(p for p in range(2) if torch.equal(clip.portraits()[p], pairs["portraits"][i]))
        torch.testing.assert_close(pairs["flow"][i], 2 * flow[which, first : first + 2].float())


def test_mirrored_flow_is_the_flow_of_mirrored_pictures(data_folder: Path) -> None:
    record = Manifest(data_folder).select("train")[0]
    path = data_folder / record.clip
    flow = torch.zeros(2, 6, 2, 64, 64)
    flow[:, :, 0, :, :32], flow[:, :, 1, :, :32] = 0.1, 0.2  # the left half came from the right and from below
    save_file({**load_file(path), "flow": flow.half()}, path)
    draw = [
        draw_pairs(FrameSampler(data_folder, image_size=32), [record], 8, torch.Generator().manual_seed(2), flip=f)
        for f in (False, True)
    ]
    both = [p["flow"] for p in draw]
    flipped = [i for i in range(8) if both[0][i].isfinite().all() and not torch.equal(both[0][i], both[1][i])]
    assert flipped
    for i in flipped:
        assert both[1][i][:, 0, :, 32:].mean() == pytest.approx(-0.2, abs=1e-3)
        assert both[1][i][:, 1, :, 32:].mean() == pytest.approx(0.4, abs=1e-3)
        assert both[1][i][:, :, :, :32].abs().max() == 0


def test_reframed_portraits_are_other_pictures_of_the_same_frames(data_folder: Path) -> None:
    sampler, records = FrameSampler(data_folder, image_size=32), Manifest(data_folder).select("train")
    plain, framed = (
        draw_pairs(sampler, records, 4, torch.Generator().manual_seed(5), flip=False, reframe=r)
        for r in (0.0, 1.0)
    )
    assert torch.equal(plain["frames"], framed["frames"])
    assert not torch.equal(plain["portraits"], framed["portraits"])
    assert framed["flow"].isnan().all()


def test_no_clips_are_an_error(data_folder: Path) -> None:
    with pytest.raises(MediaError, match="no clips of this split"):
        draw_pairs(FrameSampler(data_folder, image_size=32), [], 1, torch.Generator(), flip=False)


def test_quality_of_closed_masks_is_that_of_the_plain_frames(carry_recipe: MakeRecipe, data_folder: Path) -> None:
    stage = build_stage(carry_recipe())
    assert isinstance(stage, CarryStage)
    stage.carry.masks_out.weight.data.zero_()
    stage.carry.masks_out.bias.data.fill_(-30.0)
    found = stage.validate(torch.device("cpu"))
    for name in ("psnr", "psnr_mouth", "psnr_eyes", "flicker"):
        assert found[name] == pytest.approx(found[f"plain_{name}"], abs=0.05)
    assert found["plain_flicker"] > 0
    assert set(carry_quality(stage.carry, stage.autoencoder, stage.validation_pairs() or {})) == set(found)
