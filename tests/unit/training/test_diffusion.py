"""The denoiser's training: targets, variance, memory noise, and what a recipe switches on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from letstalk_core.errors import ConfigError, MediaError
from letstalk_core.networks.checkpoint import read_header
from letstalk_core.networks.load import load_model
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.sampling.denoisers import make_denoiser
from letstalk_core.sampling.schedules import step_to_sigma
from letstalk_research.commands.train import build_stage
from letstalk_research.training import losses
from letstalk_research.training.config import DiTRecipe, Recipe
from letstalk_research.training.loop import train
from letstalk_research.training.plots import read_csv

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("prediction", ["flow", "v", "epsilon"])
def test_a_perfect_prediction_denoises_perfectly(make_recipe: MakeRecipe, prediction: str) -> None:
    """Training's targets and sampling's denoisers share one convention."""
    recipe = make_recipe("dit", f"model.prediction={prediction}", "model.portrait_residual=false")
    assert isinstance(recipe, DiTRecipe)
    settings = recipe.model
    clean, noise, time = torch.randn(3, 2, 4, 2, 2), torch.randn(3, 2, 4, 2, 2), torch.tensor([0.1, 0.5, 0.9])
    noisy = losses.add_noise(clean, noise, time, prediction)

    class Perfect(torch.nn.Module):
        config = settings

        def forward(self, x: torch.Tensor, timestep: torch.Tensor, **conditions: torch.Tensor) -> torch.Tensor:
            torch.testing.assert_close(x, noisy.x, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(timestep, noisy.timestep, rtol=1e-4, atol=1e-2)
            return noisy.target

    sigma = time if prediction == "flow" else step_to_sigma(noisy.timestep).float()
    scale = 1.0 if prediction == "flow" else (1 + sigma**2).sqrt().view(-1, 1, 1, 1, 1)
    found = make_denoiser(Perfect())(noisy.x * scale, sigma, portrait=clean[:, 0])
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)


def test_times_are_in_range_and_follow_their_settings() -> None:
    times = losses.draw_times(4000, torch.device("cpu"), mean=1.0, std=0.5, uniform=0.0)
    assert 0 < times.min() <= times.max() <= 1
    assert times.median().item() == pytest.approx(0.731, abs=0.02)  # sigmoid(1)
    flat = losses.draw_times(4000, torch.device("cpu"), mean=1.0, std=0.5, uniform=1.0)
    assert flat.mean().item() == pytest.approx(0.5, abs=0.03)


def test_the_variance_term_is_least_at_the_true_variance_and_moves_only_the_variance() -> None:
    clean, noise = torch.randn(2, 3, 4, 2, 2), torch.randn(2, 3, 4, 2, 2)
    noisy = losses.add_noise(clean, noise, torch.tensor([0.3, 0.7]), "epsilon")
    bounds = [
        losses.variance_bound(clean, noisy, noise, torch.full_like(clean, v)).mean() for v in (-1.0, 0.0, 1.0)
    ]
    assert abs(bounds[0]) < 1e-4  # the smallest variance is the true one when the mean is right
    assert bounds[0] < bounds[1] < bounds[2]
    epsilon, variance = noise.clone().requires_grad_(), torch.zeros_like(noise).requires_grad_()
    losses.variance_bound(clean, noisy, epsilon, variance).mean().backward()
    assert epsilon.grad is None
    assert variance.grad is not None and variance.grad.all()


def test_masked_positions_are_an_exact_share_and_the_same_in_all_frames() -> None:
    masked = losses.mask_positions(torch.ones(6, 3, 2, 4, 4), 0.25) == 0
    assert (masked.sum((-1, -2)) == 4).all()
    assert torch.equal(masked, masked[:, :1, :1].expand_as(masked))
    assert len({tuple(m[0, 0].flatten().tolist()) for m in masked}) > 1


def test_memory_noise_is_small_and_spares_the_kept_frames() -> None:
    memory = torch.randn(64, 3, 4, 4, 4)
    out = losses.disturb_memory(memory, keep=1, ddpm_steps=50, mask=0.0)
    assert torch.equal(out[:, :1], memory[:, :1])
    difference = (out - memory)[:, 1:].std((1, 2, 3, 4))
    assert 0 < difference.min() < difference.max() < 0.25  # t << T
    levels = losses.disturb_memory(torch.zeros(400, 1, 1, 4, 4), ddpm_steps=0, sigma=0.5, mask=0.0).std(
        (1, 2, 3, 4)
    )
    assert 0.2 < levels.mean() < 0.3


def test_switched_off_memory_noise_changes_nothing() -> None:
    memory = torch.randn(2, 3, 4, 4, 4)
    assert torch.equal(losses.disturb_memory(memory, ddpm_steps=0, mask=0.25, mask_probability=0.0), memory)
    assert losses.disturb_memory(memory[:, :0]).shape[1] == 0


@pytest.mark.slow
def test_training_logs_levels_validates_and_draws_strips(make_recipe: MakeRecipe, autoencoder: Path) -> None:
    options = ("loop.steps=3", "loop.validate_every=3", "loop.sample_every=3", "objective.sample_steps=2")
    recipe = make_recipe("dit", *options, f"objective.autoencoder={autoencoder}")
    result = train(build_stage(recipe))
    assert {"mse", "loss", "items_per_second"} <= set(read_csv(result.run / "log.csv")[0])
    assert {"loss", "loss_other_audio"} <= set(read_csv(result.run / "validation.csv")[0])
    assert (result.run / "samples" / "step-0000003.png").stat().st_size > 0
    assert sorted(read_header(result.exported[0]).parts) == ["audio_projection", "dit"]


SAMPLE, GUIDED = "model.output=sample", "objective.model_guidance=0.3"
PLAIN = "model.portrait_residual=false"
DROPS = " ".join(f"objective.drop_{name}=1.0" for name in ("audio", "portrait", "memory"))


@pytest.mark.parametrize(
    "changes",
    [
        f"model.prediction=epsilon model.learned_variance=true {PLAIN} objective.gradient_checkpointing=true",
        f"model.prediction=v {DROPS}",
        f"{SAMPLE} objective.smallest_sigma=0.3",
        GUIDED,
        f"{SAMPLE} {GUIDED}",
        f'projection.movement=["yaw","blink"] objective.drop_audio=0.5 {GUIDED}',
        f"{PLAIN} model.anchor_frames=0 objective.memory_sigma=0.2 data.workers=2",
    ],
)
def test_every_kind_of_objective_takes_steps(make_recipe: MakeRecipe, changes: str) -> None:
    result = train(build_stage(make_recipe("dit", "loop.steps=2", *changes.split())))
    rows = read_csv(result.run / "log.csv")
    assert [r["step"] for r in rows] == ["1", "2"]
    assert all(float(r["loss"]) > 0 and float(r["gradient_norm"]) > 0 for r in rows)
    assert ("variance" in rows[0]) == ("model.learned_variance=true" in changes)


@pytest.mark.parametrize("output", ["prediction", "sample"])
def test_model_guidance_moves_the_target_away_from_silence(make_recipe: MakeRecipe, output: str) -> None:
    recipe = make_recipe("dit", f"model.output={output}", "objective.smallest_sigma=1.0")
    module = build_stage(recipe).module.eval()
    torch.manual_seed(0)
    for parameter in module.parameters():  # a new network puts out zeros whatever it hears
        torch.nn.init.normal_(parameter, std=0.05)
    config = module.dit.config
    clean = torch.randn(2, config.clip_frames, config.in_channels, *config.grid_size)
    memory = torch.randn(2, config.bank_frames, *clean.shape[2:])
    audio = torch.randn(2, config.clip_frames, module.audio_projection.config.tokens, config.audio_token_dim)
    known = Conditions(clean[:, 0], audio, memory)
    noise, time, weights = torch.randn_like(clean), torch.tensor([0.5, 1.0]), torch.ones_like(clean[:, :, :1])

    def loss(target: torch.Tensor, guided: torch.Tensor | None) -> torch.Tensor:
        with torch.no_grad():
            return module.losses(target, noise, time, known, weights, guided)[0]

    unguided, zero = loss(clean, None), loss(clean, torch.zeros(2))
    torch.testing.assert_close(zero, unguided)
    half = loss(clean, torch.tensor([0.5, 0.0]))
    assert abs(float(half[0] - unguided[0])) > 1e-5
    torch.testing.assert_close(half[1], unguided[1])  # a sample that hears nothing keeps its target


def test_latents_of_other_networks_are_refused_by_name(make_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match="in_channels=8"):
        train(build_stage(make_recipe("dit", "model.in_channels=8")))


def test_movement_is_learned_and_saved_and_clips_that_lack_it_are_refused(make_recipe: MakeRecipe) -> None:
    told = make_recipe("dit", 'projection.movement=["yaw", "blink"]', "loop.steps=2")
    stage = build_stage(told)
    before = stage.module.audio_projection.movement_1.weight.clone()
    exported = train(stage).exported[0]
    assert not torch.equal(before, stage.module.audio_projection.movement_1.weight)
    assert load_model(exported, "audio_projection").config.movement == ("yaw", "blink")
    with pytest.raises(MediaError, match="does not say how pitch move"):
        train(build_stage(make_recipe("dit", 'projection.movement=["yaw", "pitch"]')))


def test_samples_are_drawn_under_bf16_autocast(make_recipe: MakeRecipe, autoencoder: Path, tmp_path: Path) -> None:
    movement = 'projection.movement=["blink"]'
    options = (f"objective.autoencoder={autoencoder}", "objective.sample_steps=2", movement)
    stage = build_stage(make_recipe("dit", *options))
    stage.refresh()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        stage.sample(tmp_path / "strip.png", torch.device("cpu"))
    assert (tmp_path / "strip.png").stat().st_size > 0


def test_low_rank_training_changes_nothing_but_what_its_file_says(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    first = train(build_stage(make_recipe("dit", f"loop.run={tmp_path / 'first'}"))).exported[0]
    with pytest.raises(ConfigError, match="lora_rank needs"):
        build_stage(make_recipe("dit", "objective.lora_rank=2"))
    changes = ("objective.lora_rank=2", f"loop.init={first}", "optimizer.lr=0.01", "optimizer.name=adamw")
    whole, small = train(build_stage(make_recipe("dit", f"loop.run={tmp_path / 'second'}", *changes))).exported
    before, after, low = (load_file(path) for path in (first, whole, small))
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    for key in before:
        part, name = key.split(".", 1)
        layer = f"diffusion_model.{'' if part == 'dit' else part + '.'}{name.removesuffix('.weight')}"
        if key in changed:
            added = low[f"{layer}.lora_up.weight"].float() @ low[f"{layer}.lora_down.weight"].float()
            torch.testing.assert_close(after[key].float(), before[key].float() + added, rtol=2e-3, atol=2e-3)
    assert any(key.startswith("audio_projection.") for key in changed) and len(changed) < len(before)
    assert {float(v) for key, v in low.items() if key.endswith(".alpha")} == {2.0}
