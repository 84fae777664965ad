"""How much of everything an experiment spends: the same for each of its variants."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from letstalk_core.errors import ConfigError

__all__ = ["PREDICTIONS", "Budget"]

# What the networks predict where an experiment does not vary it, as settings of the network
PREDICTIONS: dict[str, dict[str, Any]] = {
    "sample": {"prediction": "flow", "output": "sample"},  # a narrow network need not carry the noise
    "flow": {"prediction": "flow", "output": "prediction"},
    "v": {"prediction": "v", "output": "prediction"},
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training is `steps` of `batch_size` clips for every variant; without steps, as many as the experiment's
    reference does in `minutes`; with equal="time", `minutes` for each whatever the steps.

    Measured are `people` who speak for `seconds`, each with `noises` seeds of the noise; every `read_every`th
    frame is decoded and read. Long videos are `long_clips` clips of `long_people` people. `poses` are drawn to fit
    the reader of each person's face.
    """

    steps: int = 0
    minutes: float = 0.0
    predict: str = "sample"  # or flow, v: see PREDICTIONS
    equal: str = "steps"
    batch_size: int = 4
    seeds: tuple[int, ...] = (1,)  # of the trainings of each variant
    clip_frames: int = 16
    hidden_size: int = 96
    depth: int = 3
    lr: float = 1.5e-3
    people: int = 12
    seconds: float = 2.56
    noises: int = 2
    read_every: int = 2
    sampling_steps: int = 8
    poses: int = 120
    long_people: int = 3
    long_clips: int = 104
    long_steps: int = 6
    slow_people: int = 3  # who are measured with the paper's 250 steps
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if (self.steps > 0) == (self.minutes > 0):
            raise ConfigError(
                f"steps={self.steps} and minutes per model={self.minutes}: give one of them, greater than 0"
            )
        if self.predict not in PREDICTIONS:
            raise ConfigError(f"predict={self.predict!r} must be one of {', '.join(PREDICTIONS)}")
        if self.equal not in ("steps", "time"):
            raise ConfigError(f"equal={self.equal!r} must be steps or time")
        if self.equal == "time" and not self.minutes:
            raise ConfigError("equal time needs the minutes per model; give them instead of steps")
        for name, least in (("people", 2), ("noises", 2), ("long_people", 1), ("long_clips", 8), ("poses", 16)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name.replace('_', ' ')}={getattr(self, name)} must be at least {least}")
        for name in (
            "batch_size",
            "read_every",
            "sampling_steps",
            "long_steps",
            "slow_people",
            "depth",
            "clip_frames",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name.replace('_', ' ')}={getattr(self, name)} must be at least 1")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds={self.seeds} must be different numbers, at least one")
        if self.seconds * 25 / self.read_every < 8:
            raise ConfigError(f"seconds={self.seconds} leaves fewer than 8 frames to read; make it longer")

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the usual prediction is left out, as in folders from before there was a choice."""
        values = {**dataclasses.asdict(self), "seeds": list(self.seeds)}
        if self.predict == "sample":
            del values["predict"]
        return values
