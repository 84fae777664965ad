"""Training of one variant with the loop of `letstalk train dit`: skipped when done, resumed when interrupted."""

from __future__ import annotations

import json
import logging
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.networks.checkpoint import read_header

from ..output import save_json
from ..training.config import DiTRecipe
from ..training.diffusion import DiTStage
from ..training.loop import train
from ..training.plots import read_csv
from ..training.runtime import Stopped
from .variants import Budget, DataFacts, Variant, make_recipe

logger = logging.getLogger(__name__)
RESULT, PLAN = "result.json", "steps.json"
TRIAL_STEPS, WARM_STEPS = 24, 8  # of the timing; the first ones are slower
LEAST_STEPS = 4


@dataclass(frozen=True)
class Trained:
    """A finished training. `validation` holds the loss with the right sound and with that of another clip."""

    name: str
    seed: int
    folder: Path
    steps: int
    samples: int
    seconds: float  # in the loop, over all sessions
    processor_seconds: float  # of a step, in the last session: other work on the machine does not count
    parameters: int  # of the denoiser, without the audio projection
    validation: Mapping[str, float] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "dit.safetensors"


def train_variant(
    variant: Variant, facts: DataFacts, budget: Budget, *, folder: Path, seed: int, steps: int
) -> Trained:
    """Train, go on with, or only read a variant's run in `folder`.

    Raises: Stopped, ConfigError, NumericalError.
    """
    name = f"{variant.name}-seed{seed}"
    run = folder / name
    if (run / RESULT).is_file():
        return Trained(folder=run, **json.loads((run / RESULT).read_text(encoding="utf-8")))
    minutes = budget.minutes if budget.equal == "time" else 0.0
    recipe = make_recipe(
        variant, facts, budget, run=run, seed=seed, steps=0 if minutes else steps, minutes=minutes
    )
    stage = _ClockedStage(recipe)
    ended = train(stage)
    if ended.signal is not None:
        raise Stopped(ended.signal)
    shapes = read_header(run / "dit.safetensors").shapes
    trained = Trained(
        name=variant.name,
        seed=seed,
        folder=run,
        steps=ended.step,
        samples=ended.step * budget.batch_size,
        seconds=float(read_csv(run / "log.csv")[-1]["seconds"]),
        processor_seconds=stage.seconds_per_step(),
        parameters=sum(math.prod(shape) for key, shape in shapes.items() if key.startswith("dit.")),
        validation=_validation(run),
    )
    values = asdict(trained)
    del values["folder"]
    save_json(run / RESULT, values, indent=1)
    for state in run.glob("state-*.pt"):  # only needed to go on
        state.unlink()
    return trained


def plan_steps(reference: Variant, facts: DataFacts, budget: Budget, *, folder: Path) -> int:
    """Steps of every training: those given, or what the reference does in the minutes given (timed once, kept).

    Raises: Stopped, ConfigError if the folder was begun with another budget.
    """
    if budget.steps or budget.equal == "time":
        return budget.steps
    path = folder / PLAN
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["minutes"] != budget.minutes:
            raise ConfigError(
                f"{folder}: was begun with {found['minutes']} minutes per model, not {budget.minutes}; choose"
                " another output folder"
            )
        return int(found["steps"])
    scratch = folder / "timing"
    shutil.rmtree(scratch, ignore_errors=True)
    recipe = make_recipe(reference, facts, budget, run=scratch, seed=0, steps=TRIAL_STEPS)
    ended = train(DiTStage(recipe))
    if ended.signal is not None:
        raise Stopped(ended.signal)
    rows = {int(row["step"]): float(row["seconds"]) for row in read_csv(scratch / "log.csv")}
    first = min(step for step in rows if step >= WARM_STEPS)
    seconds = (rows[TRIAL_STEPS] - rows[first]) / (TRIAL_STEPS - first)
    steps = max(LEAST_STEPS, int(60 * budget.minutes / seconds))
    shutil.rmtree(scratch)
    logger.info("%s: %.3f s a step, so %d steps for each variant", folder, seconds, steps)
    save_json(path, {"minutes": budget.minutes, "seconds_per_step": seconds, "steps": steps})
    return steps


class _ClockedStage(DiTStage):
    """Notes the processor time at each batch; batches are made in the loop's own thread."""

    def __init__(self, recipe: DiTRecipe) -> None:
        super().__init__(recipe)
        self._times: list[float] = []

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        self._times.append(time.process_time())
        return super().plan_batch(seed)

    def seconds_per_step(self) -> float:
        """The median, which a slow first step or a checkpoint does not move; 0 for a single step."""
        differences = [b - a for a, b in pairwise(self._times)]
        return statistics.median(differences) if differences else 0.0


def _validation(run: Path) -> dict[str, float]:
    rows = read_csv(run / "validation.csv") if (run / "validation.csv").is_file() else []
    return {k: float(rows[-1][k]) for k in ("loss", "loss_other_audio")} if rows else {}
