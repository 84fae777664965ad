"""How much of everything an experiment spends: the same for each of its variants."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from letstalk_core.networks.configs import Config

from ..training.config import Count

__all__ = ["PREDICTIONS", "Budget"]

# What the networks predict where an experiment does not vary it, as settings of the network
PREDICTIONS: dict[str, dict[str, Any]] = {
    "sample": {"prediction": "flow", "output": "sample"},  # a narrow network need not carry the noise
    "flow": {"prediction": "flow", "output": "prediction"},
    "v": {"prediction": "v", "output": "prediction"},
}


@dataclass(frozen=True, kw_only=True)
class Budget(Config):
    """Training is `steps` of `batch_size` clips for every variant; without steps, as many as the experiment's
    reference does in `minutes`; with equal="time", `minutes` for each whatever the steps.

    Measured are `people` who speak for `seconds`, each with `noises` seeds of the noise; every `read_every`th
    frame is decoded and read. Long videos are `long_clips` clips of `long_people` people. `poses` are drawn to fit
    the reader of each person's face.
    """

    kind = "experiment"

    steps: int = 0
    minutes: float = 0.0
    predict: Annotated[str, tuple(PREDICTIONS)] = "sample"  # or flow, v: see PREDICTIONS
    equal: Annotated[str, ("steps", "time")] = "steps"
    batch_size: Count = 4
    seeds: tuple[int, ...] = (1,)  # of the trainings of each variant
    clip_frames: Count = 16
    hidden_size: int = 96
    depth: Count = 3
    lr: float = 1.5e-3
    people: Annotated[int, ">= 2"] = 12
    seconds: float = 2.56
    noises: Annotated[int, ">= 2"] = 2
    read_every: Count = 2
    sampling_steps: Count = 8
    poses: Annotated[int, ">= 16"] = 120
    long_people: Count = 3
    long_clips: Annotated[int, ">= 8"] = 104
    long_steps: Count = 6
    slow_people: Count = 3  # who are measured with the paper's 250 steps
    device: str = "auto"
    precision: str = "auto"

    def validate(self) -> None:
        given = f"steps={self.steps} and minutes per model={self.minutes}"
        self.require((self.steps > 0) != (self.minutes > 0), f"{given}: give one of them, greater than 0")
        timed = self.equal == "steps" or self.minutes > 0
        self.require(timed, "equal time needs the minutes per model; give them instead of steps")
        differ = len(set(self.seeds)) == len(self.seeds) > 0
        self.require(differ, f"seeds={self.seeds} must be different numbers, at least one")
        enough = self.seconds * 25 / self.read_every >= 8
        self.require(enough, f"seconds={self.seconds} leaves fewer than 8 frames to read; make it longer")

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the usual prediction is left out, as in folders from before there was a choice."""
        values = {**dataclasses.asdict(self), "seeds": list(self.seeds)}
        if self.predict == "sample":
            del values["predict"]
        return values
