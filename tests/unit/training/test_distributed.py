"""Training on several processes, by gloo on a CPU: what one process with the summed batch comes to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from letstalk_research.commands.train import build_stage
from letstalk_research.training.config import Recipe
from letstalk_research.training.loop import train
from letstalk_research.training.plots import read_csv

from .test_loop import weights

ROOT = Path(__file__).resolve().parents[3]
MakeRecipe = Callable[..., Recipe]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dit", "autoencoder"])
def test_two_processes_come_to_the_weights_of_one_that_sums_their_batches(
    make_recipe: MakeRecipe, tmp_path: Path, stage: str
) -> None:
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


CHANGED = [
    *(("data", key) for key in ("folder", "batch_size", "workers", "validation_items", "reread_every")),
    *(("loop", key) for key in ("run", "steps", "precision", "device", "log_every", "num_threads")),
    *(("loop", f"{key}_every") for key in ("validate", "sample", "export", "checkpoint")),
    ("optimizer", "accumulate"),
]
