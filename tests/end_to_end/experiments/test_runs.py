"""Trainings of variants: equal budgets, resumed when interrupted, skipped when done."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from letstalk_core.errors import ConfigError
from letstalk_core.networks.checkpoint import load_tensors, read_header
from letstalk_research.experiments import runs
from letstalk_research.experiments.runs import Stopped, plan_steps, train_variant
from letstalk_research.experiments.suite import EXPERIMENTS
from letstalk_research.experiments.variants import Budget, Variant, make_recipe
from letstalk_research.training.diffusion import DiTStage

BASE = Variant("base")
SMALLER = Variant("smaller", {"memory_frames": 1, "spatial_attention": "softmax"}, {"memory_mask": 0.0})


def interrupt_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    plan = DiTStage.plan_batch
    seen = []

    def interrupting(self: DiTStage, seed: int) -> Callable[[], Any]:
        seen.append(seed)
        if len(seen) == batch:
            signal.raise_signal(signal.SIGTERM)
        return plan(self, seed)

    monkeypatch.setattr(DiTStage, "plan_batch", interrupting)


def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(
    world: Any, budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_variant(BASE, world.facts, budget, folder=tmp_path / "a", seed=3, steps=4)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2)
        with pytest.raises(Stopped) as stopped:
            train_variant(BASE, world.facts, budget, folder=tmp_path / "b", seed=3, steps=4)
    assert stopped.value.signal == signal.SIGTERM
    assert not (tmp_path / "b/base-seed3/result.json").exists()
    resumed = train_variant(BASE, world.facts, budget, folder=tmp_path / "b", seed=3, steps=4)
    assert (resumed.steps, resumed.samples) == (whole.steps, whole.samples) == (4, 8)
    assert resumed.validation == whole.validation
    left, right = load_tensors(whole.file), load_tensors(resumed.file)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_a_finished_training_is_read_and_not_repeated(
    world: Any, budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_variant(SMALLER, world.facts, budget, folder=tmp_path, seed=1, steps=4)
    monkeypatch.delattr(runs, "train")
    assert train_variant(SMALLER, world.facts, budget, folder=tmp_path, seed=1, steps=4) == first
    config = read_header(first.file).part("dit")[1]
    assert (config.memory_frames, config.spatial_attention) == (1, "softmax")
    assert first.parameters == sum(t.numel() for t in load_tensors(first.file, prefix="dit.").values())
    assert (
        first.seconds > 0 and first.processor_seconds > 0 and set(first.validation) == {"loss", "loss_other_audio"}
    )
    assert not list(first.folder.glob("state-*.pt"))


def test_minutes_become_the_same_steps_on_every_later_run(
    world: Any, budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = dataclasses.replace(budget, steps=0, minutes=0.01)
    steps = plan_steps(BASE, world.facts, timed, folder=tmp_path)
    assert steps >= 4
    monkeypatch.delattr(runs, "train")
    assert plan_steps(BASE, world.facts, timed, folder=tmp_path) == steps
    with pytest.raises(ConfigError, match=r"0\.01 minutes"):
        plan_steps(BASE, world.facts, dataclasses.replace(timed, minutes=2.0), folder=tmp_path)
    assert plan_steps(BASE, world.facts, budget, folder=tmp_path) == 4


def test_equal_time_ends_by_the_clock(world: Any, budget: Budget, tmp_path: Path) -> None:
    timed = dataclasses.replace(budget, steps=0, minutes=0.002, equal="time")
    trained = train_variant(BASE, world.facts, timed, folder=tmp_path, seed=1, steps=0)
    assert trained.steps >= 1 and trained.seconds >= 0.12


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_variants_of_an_experiment_differ_in_nothing_but_what_they_say(
    name: str, world: Any, budget: Budget, tmp_path: Path
) -> None:
    variants, _ = EXPERIMENTS[name]
    assert len({v.name for v in variants}) == len(variants)
    recipes = [make_recipe(v, world.facts, budget, run=tmp_path, seed=1, steps=4) for v in variants]
    shared = [
        {
            table: {k: v for k, v in values.items() if k not in getattr(variant, table, {})}
            for table, values in recipe.to_dict().items()
            if isinstance(values, dict)
        }
        for variant, recipe in zip(variants, recipes, strict=True)
    ]
    keys = {
        (table, key) for variant in variants for table in ("model", "objective") for key in getattr(variant, table)
    }
    for found in shared[1:]:
        for table, values in found.items():
            for key, value in values.items():
                if (table, key) not in keys:
                    assert value == shared[0][table][key], (table, key)
    assert len({str(recipe.to_dict()) for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize(("predict", "expected"), [("sample", "flow"), ("flow", "flow"), ("v", "v")])
def test_what_networks_predict_is_the_budgets_choice_but_where_it_is_varied(
    predict: str, expected: str, world: Any, budget: Budget, tmp_path: Path
) -> None:
    budget = dataclasses.replace(budget, predict=predict)
    model = make_recipe(SMALLER, world.facts, budget, run=tmp_path, seed=1, steps=4).model
    assert (model.prediction, model.output == "sample") == (expected, predict == "sample")
    variants, _ = EXPERIMENTS["prediction"]
    varied = [make_recipe(v, world.facts, budget, run=tmp_path, seed=1, steps=4).model for v in variants]
    assert [m.prediction for m in varied] == ["epsilon", "v", "flow", "flow", "epsilon"]
    assert [m.output == "sample" for m in varied] == [False, False, False, True, False]
    assert ("predict" in budget.to_dict()) == (predict != "sample")  # folders of before stay usable


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "give one of them"),
        ({"minutes": 1.0}, "give one of them"),
        ({"equal": "time"}, "minutes"),
        ({"people": 1}, "people=1"),
        ({"seeds": (1, 1)}, "different"),
        ({"seconds": 0.3}, "fewer than 8 frames"),
        ({"predict": "epsilon"}, "predict='epsilon' must be one of sample, flow, v"),
    ],
)
def test_a_budget_that_cannot_work_is_refused(changes: dict[str, Any], words: str, budget: Budget) -> None:
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(budget, **changes)
