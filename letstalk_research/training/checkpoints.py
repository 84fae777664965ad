"""What a run keeps: averaged weights, and its state on disk.

The state lies in two files written in turn, each atomically, so that a kill always leaves a whole one.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from letstalk_core.errors import CheckpointError, OutputError
from letstalk_core.files import atomic_path

FORMAT = 1
NAMES = ("state-a.pt", "state-b.pt")
logger = logging.getLogger(__name__)


def _read(path: Path) -> dict[str, Any] | None:
    """A state file without running any code from it; None if it is damaged or of another format."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        logger.warning("%s: cannot be read (%s)", path, str(error).splitlines()[:1])
        return None
    return state if isinstance(state, dict) and state.get("format") == FORMAT else None


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest whole state of a run, None for a new run. Raises: CheckpointError if no state there is whole."""
    paths = [path for path in (folder / name for name in NAMES) if path.is_file()]
    states = [s for s in map(_read, paths) if s is not None]
    if paths and not states:
        raise CheckpointError(
            f"{' and '.join(map(str, paths))}: cannot be read, so the run cannot go on; delete them to start it"
            " anew, or choose another folder (--set loop.run=...)"
        )
    return max(states, key=lambda s: int(s["step"])) if states else None


def save_state(folder: Path, state: dict[str, Any]) -> Path:
    """Write a state over the older of the two files. Raises: OutputError."""
    paths = [folder / name for name in NAMES]
    path = min(paths, key=lambda p: p.stat().st_mtime_ns if p.is_file() else 0)
    try:
        with atomic_path(path) as temporary:
            torch.save({"format": FORMAT, **state}, temporary)
    except RuntimeError as error:  # torch reports a full disk so
        raise OutputError(f"{path}: cannot be written ({error}); check free disk space") from None
    return path


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
