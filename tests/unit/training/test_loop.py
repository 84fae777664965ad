"""The loop: resuming, budgets, signals, logs, several processes and a manifest that grows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from letstalk_core.errors import CheckpointError, ConfigError, DependencyError, NumericalError
from letstalk_core.networks.checkpoint import load_tensors, read_header
from letstalk_research.commands.train import build_stage
from letstalk_research.training.autoencoder import AutoencoderStage
from letstalk_research.training.checkpoints import load_state
from letstalk_research.training.config import Recipe
from letstalk_research.training.loop import train
from letstalk_research.training.plots import read_csv

from .conftest import write_clip

ROOT = Path(__file__).resolve().parents[3]
MakeRecipe = Callable[..., Recipe]


class Stopping:
    """A stage that does something at one of its batches."""

    def __init__(self, stage: Any, batch: int, action: Callable[[], None]) -> None:
        self._stage, self._left, self._action = stage, batch, action

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)

    def plan_batch(self, seed: int) -> Callable[[], Any]:
        self._left -= 1
        if self._left == 0:
            self._action()
        job: Callable[[], Any] = self._stage.plan_batch(seed)
        return job


def saved(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    state = load_state(folder)
    assert state is not None
    return state


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = saved(folder)
    return {**state["module"], **{f"ema {k}": v for k, v in state["ema"]["average"].items()}}


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("autoencoder", ("optimizer.name=muon",)),
        ("dit", ("optimizer.name=adamw",)),
        ("carry", ()),
        ("lips", ("objective.noise=0.3", "objective.dropout=0.2")),
    ],
)
def test_a_killed_run_goes_on_to_bitwise_the_same_weights(
    make_recipe: MakeRecipe, tmp_path: Path, stage: str, changes: tuple[str, ...]
) -> None:
    options = (*changes, "loop.steps=4", "optimizer.accumulate=2")
    train(build_stage(make_recipe(stage, *options, f"loop.run={tmp_path / 'whole'}")))

    def kill() -> None:
        raise RuntimeError("killed")

    parts = make_recipe(stage, *options, "loop.checkpoint_every=1")
    with pytest.raises(RuntimeError, match="killed"):
        train(Stopping(build_stage(parts), 2 * 2 + 1, kill))
    assert saved(tmp_path / "run")["step"] == 2
    train(build_stage(parts))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    if stage == "carry":  # its autoencoder is frozen, and not stored again and again
        assert not [k for k in whole if "autoencoder" in k]
    assert [r["step"] for r in read_csv(tmp_path / "run" / "log.csv")] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("stage", ["autoencoder", "dit", "carry", "lips"])
def test_a_run_can_start_from_an_exported_model(make_recipe: MakeRecipe, tmp_path: Path, stage: str) -> None:
    exported = train(build_stage(make_recipe(stage, "loop.steps=1"))).exported[0]
    second = make_recipe(stage, f'loop.init="{exported}"', f"loop.run={tmp_path / 'second'}", "loop.steps=1")
    state = build_stage(second).module.state_dict()
    assert all(torch.equal(state[name].half(), value.half()) for name, value in load_tensors(exported).items())
    assert train(build_stage(second)).step == 1


def test_a_half_written_checkpoint_is_passed_over(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train(build_stage(make_recipe("dit", "loop.checkpoint_every=2")))
    newest = max((tmp_path / "run").glob("state-*.pt"), key=lambda p: p.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:1000])
    assert saved(tmp_path / "run")["step"] == 2


def test_a_run_with_damaged_checkpoints_does_not_start_anew(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("state-a.pt", "state-b.pt"):
        (tmp_path / "run" / name).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"state-a\.pt and .*state-b\.pt"):
        train(build_stage(make_recipe("dit")))


def test_without_accelerate_the_remedy_is_named(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(DependencyError, match=r"accelerate.*pip install 'letstalk-portrait\[train\]'"):
        train(build_stage(make_recipe("dit")))


def test_sigterm_writes_a_checkpoint_and_ends_cleanly(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    stage = Stopping(build_stage(make_recipe("dit")), 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    result = train(stage)
    assert (result.signal, result.step) == (signal.SIGTERM, 2)
    assert saved(tmp_path / "run")["step"] == 2
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_clips_added_during_training_are_used(make_recipe: MakeRecipe, tmp_path: Path, data_folder: Path) -> None:
    stage = build_stage(make_recipe("dit", "loop.steps=4"))
    train(Stopping(stage, 2, lambda: write_clip(data_folder, "late")))
    assert saved(tmp_path / "run")["position"] == 5


def test_a_run_of_another_precision_follows_in_the_same_process(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    train(build_stage(make_recipe("dit", "loop.steps=1")))
    other = make_recipe("dit", "loop.steps=1", "loop.precision=bf16", f"loop.run={tmp_path / 'other'}")
    assert train(build_stage(other)).step == 1
    assert '"steps": 1' in (tmp_path / "other" / "recipe.json").read_text()  # the resolved one


def test_minutes_end_a_run_that_has_steps_left(make_recipe: MakeRecipe) -> None:
    result = train(build_stage(make_recipe("dit", "loop.steps=1000000", "loop.max_minutes=0.01")))
    assert result.step < 1_000_000
    assert [p.name for p in result.exported] == ["dit.safetensors"]


@pytest.mark.slow
def test_a_finished_run_exports_averaged_half_precision_weights(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    result = train(build_stage(make_recipe("autoencoder", "loop.validate_every=2", "loop.sample_every=4")))
    header = read_header(result.exported[0])
    assert set(header.dtypes.values()) == {"F16"}
    assert header.parts["autoencoder"].to_dict()["scaling_factor"] != 1.0
    assert len(header.parts["autoencoder"].to_dict()["latent_rgb_factors"]) == 4
    rows = read_csv(tmp_path / "run" / "validation.csv")
    assert [r["step"] for r in rows] == ["2", "4"]
    assert {"psnr", "psnr_mouth", "psnr_eyes"} <= set(rows[0])
    assert (tmp_path / "run" / "samples" / "step-0000004.png").stat().st_size > 0
    assert (tmp_path / "run" / "curves.png").stat().st_size > 0


def test_whole_numbers_are_exported_as_they_are(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    stage = build_stage(make_recipe("autoencoder"))
    assert isinstance(stage, AutoencoderStage)
    stage.autoencoder.register_buffer("count", torch.tensor([70_001]))  # more than half precision holds
    with torch.no_grad():
        (path,) = stage.export(tmp_path, torch.device("cpu"))
    assert load_tensors(path, prefix="autoencoder.")["count"].tolist() == [70_001]


def test_a_folder_of_another_model_is_refused(make_recipe: MakeRecipe) -> None:
    train(build_stage(make_recipe("dit", "loop.steps=1")))
    with pytest.raises(ConfigError, match="another model"):
        train(build_stage(make_recipe("dit", "model.depth=2")))


def test_endless_bad_gradients_stop_the_training(make_recipe: MakeRecipe) -> None:
    stage = build_stage(make_recipe("dit", "loop.steps=100"))
    with torch.no_grad():
        next(stage.module.parameters()).fill_(float("nan"))
    with pytest.raises(NumericalError, match="learning|lr"):
        train(stage)


# What `make_recipe` changes of the file that it writes.
CHANGED = [
    *(("data", key) for key in ("folder", "batch_size", "workers", "validation_items", "reread_every")),
    *(("loop", key) for key in ("run", "steps", "precision", "device", "log_every", "num_threads")),
    *(("loop", f"{key}_every") for key in ("validate", "sample", "export", "checkpoint")),
    ("optimizer", "accumulate"),
]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dit", "autoencoder"])
def test_two_processes_come_to_the_weights_of_one_that_sums_their_batches(
    make_recipe: MakeRecipe, tmp_path: Path, stage: str
) -> None:
    """Over gloo on a CPU."""
    options = ["loop.steps=4", "loop.num_threads=1", "loop.checkpoint_every=2"]
    one = make_recipe(stage, *options, "optimizer.accumulate=4", f"loop.run={tmp_path / 'one'}")
    two = make_recipe(stage, *options, "optimizer.accumulate=2", f"loop.run={tmp_path / 'two'}")
    train(build_stage(one))
    changes = [f"{table}.{key}={getattr(getattr(two, table), key)}" for table, key in CHANGED]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    command = ["letstalk_research.commands.train", stage, "--config", str(tmp_path / f"{stage}.toml")]
    sets = [word for change in changes for word in ("--set", change)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, *command, *sets], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "x2" in done.stderr  # processes
    alone, shared = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, wanted in alone.items():
        # The same sums in another order.
        torch.testing.assert_close(shared[name], wanted, rtol=1e-4, atol=1e-5, msg=name)
    rows = [read_csv(tmp_path / run / "log.csv") for run in ("one", "two")]
    for ours, theirs in zip(*rows, strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-4)  # of both processes
