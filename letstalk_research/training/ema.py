"""Exponential moving average of weights: smoother than the last step's, and what is exported and sampled from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["EMA"]


class EMA:
    """Float32 average of a module's parameters; buffers are copied.

    The decay warms up as (1 + n) / (10 + n), so that early weights are soon forgotten; `decay` is its limit.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average: dict[str, Tensor] = {
            k: v.detach().clone().float() if v.is_floating_point() else v.detach().clone()
            for k, v in module.state_dict().items()
        }
        self._parameters = [k for k, _ in module.named_parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = module.state_dict()
        parameters = set(self._parameters)
        averages = [self.average[k] for k in self._parameters]
        torch._foreach_lerp_(averages, [state[k].detach().float() for k in self._parameters], 1 - decay)
        for key, value in state.items():
            if key not in parameters:
                self.average[key].copy_(value)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with the averaged weights inside the block; its own come back afterwards."""
        state = module.state_dict()
        kept = {k: v.detach().clone() for k, v in state.items()}
        training = module.training
        try:
            with torch.no_grad():
                for key, value in state.items():
                    value.copy_(self.average[key])
            module.eval()
            yield
        finally:
            with torch.no_grad():
                for key, value in state.items():
                    value.copy_(kept[key])
            module.train(training)

    def state_dict(self) -> dict[str, object]:
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        average, updates = state["average"], state["updates"]
        assert isinstance(average, dict) and isinstance(updates, int)
        self.updates = updates
        for key, value in average.items():
            self.average[key].copy_(value)
