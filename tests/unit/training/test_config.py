"""Recipes: what is read, what is refused, and in which words."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from letstalk_core.errors import ConfigError, DependencyError, LetsTalkError
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.presets import AUTOENCODER
from letstalk_research.training.config import AutoencoderRecipe, DiTRecipe
from letstalk_research.training.recipe import load_recipe, recipe_path

SHIPPED = sorted(p.stem for p in recipe_path("demo_dit").parent.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_is_valid(name: str) -> None:
    kind = name.split("_")[-1]
    recipe = load_recipe({"decoder": "autoencoder"}.get(kind, kind), name)
    assert recipe.to_dict()["stage"] == recipe.stage


def test_the_paper_recipe_has_the_published_settings() -> None:
    recipe = load_recipe("dit", "paper_dit")
    assert isinstance(recipe, DiTRecipe)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.loop.steps) == (1e-4, 0.0, 300_000)
    assert (recipe.loop.gradient_clip, recipe.loop.clip_after) == (0.1, 20_000)
    model = recipe.model
    assert (model.prediction, model.learned_variance, model.clip_frames) == ("epsilon", True, 16)
    assert recipe.objective.memory_ddpm_steps == 50
    assert recipe.objective.memory_mask == 0.25


def test_overrides_replace_keys_and_presets_can_be_changed() -> None:
    changes = ["optimizer.lr=0.01", "loop.run=some/where", "model.image_size=512"]
    recipe = load_recipe("autoencoder", "demo_autoencoder", changes)
    assert isinstance(recipe, AutoencoderRecipe)
    assert recipe.optimizer.lr == 0.01
    assert recipe.loop.run == "some/where"
    assert recipe.model.image_size == 512


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[optimizer]\nlerning_rate = 1", ["[optimizer]", "lerning_rate"]),
        ("[loop]\nsteps = 'many'", ["[loop]", "steps='many'"]),
        ("[loop]\nsteps = 0", ["steps", "max_minutes"]),
        ("[optimiser]\nlr = 1.0", ["optimiser"]),
        ("[model]\npreset = 'giant'", ["[model]", "giant", "demo"]),
        ("[loop\n", ["TOML", "line 1"]),
        ("stage = 'audio'", ["audio", "letstalk train audio"]),
        ("[data]\nbatch_size = 0", ["batch_size=0"]),
    ],
)
def test_a_bad_recipe_names_its_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_recipe("autoencoder", path, [] if "steps" in text else ["loop.steps=5"])
    assert "bad.toml" in str(error.value)
    assert [w for w in words if w not in str(error.value)] == []


@pytest.mark.parametrize(
    "rest",
    ["a." * 5000 + "a = 1\n", "x = " + "[" * 100_000 + "\n", "#" * 10**7 + "\n"],
    ids=["keys", "lists", "size"],
)
def test_recipes_that_would_take_minutes_to_parse_are_refused(tmp_path: Path, rest: str) -> None:
    (tmp_path / "recipe.toml").write_text("[loop]\nsteps = 1\n" + rest)
    with pytest.raises(LetsTalkError, match=r"recipe\.toml"):
        load_recipe("dit", tmp_path / "recipe.toml")


@pytest.mark.parametrize("override", ["lr=1", "optimizer.lr", "stage.x.y=1"])
def test_a_bad_override_is_named_and_a_missing_recipe_lists_the_shipped_ones(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_recipe("dit", "demo_dit", [override])
    with pytest.raises(ConfigError, match="demo_dit"):
        load_recipe("dit", "no_such_recipe")


def test_a_python_without_a_toml_reader_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 10))
        patch.setitem(sys.modules, "tomli", None)
        with pytest.raises(DependencyError, match=r"tomli.*pip install 'letstalk-portrait\[train\]'"):
            load_recipe("dit", "demo_dit")


def test_a_network_has_the_shape_of_a_model_file(tmp_path: Path) -> None:
    config = replace(AUTOENCODER["demo"], scaling_factor=0.625)
    save_checkpoint(tmp_path / "own.safetensors", {"autoencoder": (config, {})})
    changes = [f"model.preset={tmp_path / 'own.safetensors'}", "model.image_size=128"]
    recipe = load_recipe("autoencoder", "demo_autoencoder", changes)
    assert isinstance(recipe, AutoencoderRecipe)
    assert recipe.model == replace(config, image_size=128)
