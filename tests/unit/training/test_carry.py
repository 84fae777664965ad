"""The carry stage: what it learns, what it leaves alone, and the pairs that it learns from."""

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
from letstalk_core.networks.presets import CARRY
from letstalk_research.commands.train import build_stage
from letstalk_research.data.clips import ClipFile, FrameSampler, open_clip
from letstalk_research.data.manifest import Manifest
from letstalk_research.data.pairs import draw_pairs
from letstalk_research.training.carry import CarryStage, carry_quality
from letstalk_research.training.config import Recipe
from letstalk_research.training.loop import train

MakeRecipe = Callable[..., Recipe]
Draw = Callable[..., dict[str, torch.Tensor]]


def test_training_lowers_the_loss_and_writes_a_model(make_recipe: MakeRecipe) -> None:
    stage = build_stage(make_recipe("carry", "loop.steps=12", "optimizer.lr=5e-3", "objective.latent_noise=0.0"))

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


def test_samples_are_drawn(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    build_stage(make_recipe("carry")).sample(tmp_path / "sample.png", torch.device("cpu"))
    assert (tmp_path / "sample.png").stat().st_size > 0


def test_without_an_autoencoder_or_clips_nothing_starts(make_recipe: MakeRecipe, data_folder: Path) -> None:
    with pytest.raises(ConfigError, match="autoencoder is empty"):
        make_recipe("carry", 'objective.autoencoder=""')
    with pytest.raises(MediaError, match="no clips of this split"):
        draw_pairs(FrameSampler(data_folder, image_size=32), [], 1, torch.Generator(), flip=False)


@pytest.fixture
def draw(data_folder: Path) -> Draw:
    """draw(count, seed, split, …): pairs of the folder, whose split "val" has one clip."""

    def make(count: int, seed: int, split: str = "train", **options: Any) -> dict[str, torch.Tensor]:
        sampler, records = FrameSampler(data_folder, image_size=32), Manifest(data_folder).select(split)
        generator = torch.Generator().manual_seed(seed)
        return draw_pairs(sampler, records, count, generator, **{"flip": False, **options})

    return make


def with_flow(folder: Path, flow: torch.Tensor) -> ClipFile:
    """The clip of the split "val", which knows its flow from now on."""
    record = Manifest(folder).select("val")[0]
    path = folder / record.clip
    save_file({**load_file(path), "flow": flow.half()}, path)
    return open_clip(folder, record)


def test_pairs_depend_on_the_seed_and_are_neighbours(draw: Draw, data_folder: Path) -> None:
    first, again, other = (draw(6, seed, flip=True) for seed in (1, 1, 2))
    assert all(torch.equal(first[k].nan_to_num(), again[k].nan_to_num()) for k in first)
    assert not torch.equal(first["frames"], other["frames"])
    clips = [open_clip(data_folder, r).frames() for r in Manifest(data_folder).select("train")]
    for pair in draw(6, 3)["frames"]:
        assert any(torch.equal(pair, clip[i : i + 2]) for clip in clips for i in range(len(clip) - 1))


def test_mirrored_pairs_have_mirrored_boxes(draw: Draw) -> None:
    plain, mirrored = (draw(8, 5, "val", flip=flip) for flip in (False, True))
    flipped = [i for i in range(8) if not torch.equal(plain["frames"][i], mirrored["frames"][i])]
    assert 0 < len(flipped) < 8
    for i in flipped:
        assert torch.equal(mirrored["frames"][i], plain["frames"][i].flip(-2))
        assert torch.equal(mirrored["portraits"][i], plain["portraits"][i].flip(-2))
        assert torch.equal(mirrored["regions"][i, 0, 0, [0, 2]], 32 - plain["regions"][i, 0, 0, [2, 0]])


def test_known_flow_points_to_the_portrait(draw: Draw, data_folder: Path) -> None:
    flow = torch.rand(2, 6, 2, 64, 64).half()
    clip, pairs = with_flow(data_folder, flow), draw(12, 2, "val")
    known = [i for i in range(12) if bool(pairs["flow"][i].isfinite().all())]
    assert 0 < len(known) < 12  # the others have a frame as their reference
    for i in known:
        first = next(t for t in range(5) if torch.equal(clip.frames(t, 2), pairs["frames"][i]))
        which = next(p for p in range(2) if torch.equal(clip.portraits()[p], pairs["portraits"][i]))
        torch.testing.assert_close(pairs["flow"][i], 2 * flow[which, first : first + 2].float())


def test_mirrored_flow_is_the_flow_of_mirrored_pictures(draw: Draw, data_folder: Path) -> None:
    flow = torch.zeros(2, 6, 2, 64, 64)
    flow[:, :, 0, :, :32], flow[:, :, 1, :, :32] = 0.1, 0.2  # the left half came from the right and from below
    with_flow(data_folder, flow)
    plain, mirrored = (draw(8, 2, "val", flip=flip)["flow"] for flip in (False, True))
    flipped = [i for i in range(8) if plain[i].isfinite().all() and not torch.equal(plain[i], mirrored[i])]
    assert flipped
    for i in flipped:
        assert mirrored[i][:, 0, :, 32:].mean() == pytest.approx(-0.2, abs=1e-3)
        assert mirrored[i][:, 1, :, 32:].mean() == pytest.approx(0.4, abs=1e-3)
        assert mirrored[i][:, :, :, :32].abs().max() == 0


def test_reframed_portraits_are_other_pictures_of_the_same_frames(draw: Draw) -> None:
    plain, framed = (draw(4, 5, reframe=reframe) for reframe in (0.0, 1.0))
    assert torch.equal(plain["frames"], framed["frames"])
    assert not torch.equal(plain["portraits"], framed["portraits"])
    assert framed["flow"].isnan().all()


def test_quality_of_closed_masks_is_that_of_the_plain_frames(make_recipe: MakeRecipe) -> None:
    stage = build_stage(make_recipe("carry"))
    assert isinstance(stage, CarryStage)
    stage.carry.masks_out.weight.data.zero_()
    stage.carry.masks_out.bias.data.fill_(-30.0)
    found = stage.validate(torch.device("cpu"))
    for name in ("psnr", "psnr_mouth", "psnr_eyes", "flicker"):
        assert found[name] == pytest.approx(found[f"plain_{name}"], abs=0.05)
    assert found["plain_flicker"] > 0
    assert set(carry_quality(stage.carry, stage.autoencoder, stage.validation_pairs() or {})) == set(found)


def test_gradients_in_bfloat16_are_finite() -> None:
    """oneDNN gives NaN for the bundled widths in the layout that is quicker without gradients, on some CPUs."""
    torch.manual_seed(0)
    carry = Carry(CARRY["demo"])
    carry.init_weights()
    pictures = torch.rand(3, 2, 3, 64, 64) * 2 - 1
    frames, own, again = pictures
    with torch.autocast("cpu", torch.bfloat16):
        reference = carry.prepare(own, again)
        carry.mix(frames, carry.estimate(frames, reference), reference).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in carry.parameters())
