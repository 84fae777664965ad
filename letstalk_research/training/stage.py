"""What a stage of training is to the loop, and what the loop gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .config import Recipe

__all__ = ["Batch", "Result", "Stage"]

Batch = dict[str, Tensor]


class Stage(Protocol):
    """What differs between stages. `module(batch)` returns (loss, metrics); tensors of metrics are scalars."""

    channels_last: bool

    @property
    def recipe(self) -> Recipe: ...
    @property
    def module(self) -> nn.Module: ...

    def refresh(self, limit: int | None = None) -> int:
        """Look for added data, at most up to position `limit`; returns the position, a count of manifest lines."""

    def plan_batch(self, seed: int) -> Callable[[], Batch]:
        """The job that makes a batch (on the CPU) from the data known now; it may run in another thread."""

    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Measure the module, which holds the averaged weights, on the validation split."""

    def sample(self, path: Path, device: torch.device) -> None:
        """Write a picture of what the module does; may do nothing."""

    def export(self, folder: Path, device: torch.device) -> list[Path]:
        """Write the module, which holds the averaged weights, as model files."""


@dataclass(frozen=True)
class Result:
    """How a training ended. `signal` is the number of the signal that stopped it, None if the budget ended it."""

    run: Path
    step: int
    signal: int | None = None
    exported: list[Path] = field(default_factory=list)
