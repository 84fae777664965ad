"""Exponential moving average of weights: smoother than the last step's, and what is exported and sampled from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["EMA"]


class EMA:
    """Average of a module's parameters; buffers are copied.

    The decay warms up as (1 + n) / (10 + n), so that early weights are soon forgotten; `decay` is its limit.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        @torch.no_grad()
        def average(averages: Any, weights: Any, updates: Tensor | int) -> None:
            torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))

        self._model = AveragedModel(module, multi_avg_fn=average)
        self._model.n_averaged += 1  # at 0 the next weights would be taken as they are
        self.update = self._model.update_parameters

    @property
    def average(self) -> dict[str, Tensor]:
        """Averaged weights by the module's own keys."""
        return self._model.module.state_dict()

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with the averaged weights inside the block; its own come back afterwards."""
        kept, training = {k: v.detach().clone() for k, v in module.state_dict().items()}, module.training
        try:
            module.load_state_dict(self.average)
            module.eval()
            yield
        finally:
            module.load_state_dict(kept)
            module.train(training)

    def state_dict(self) -> dict[str, object]:
        return {"updates": int(self._model.n_averaged) - 1, "average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._model.module.load_state_dict(state["average"])
        self._model.n_averaged.fill_(state["updates"] + 1)
