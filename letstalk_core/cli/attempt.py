"""One job of a batch: tried, tried again where that may help, and what became of it as a row of a table."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, DependencyError, MediaError
from ..networks.load import ModelBundle
from . import run_generate
from .failures import explain
from .jobs import Job

HOPELESS = (ConfigError, CheckpointError, MediaError, DependencyError)  # the same again, however often
Row = dict[str, Any]


class Models:
    """Loads models, and keeps the last ones for the jobs that ask for the same."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._bundle: ModelBundle | None = None

    def __call__(self, args: argparse.Namespace) -> ModelBundle:
        key = (args.model, args.device, args.dtype, args.compile)
        if self._bundle is None or key != self._key:
            self._bundle = None  # before the next ones come
            self._bundle, self._key = run_generate.load_models(args), key
        return self._bundle


def attempt(job: Job, load: Callable[[argparse.Namespace], ModelBundle], retries: int) -> Row:
    """Make one video; whatever goes wrong with it is in the row. KeyboardInterrupt makes it "stopped"."""
    for tries in range(1, retries + 2):
        try:
            job.output.parent.mkdir(parents=True, exist_ok=True)
            summary = run_generate.make(job.args, load)
        except KeyboardInterrupt:
            return {"state": "stopped", "tries": tries}
        except Exception as error:
            row = {"state": "failed", "tries": tries, "error": explain(error) or _fault(error)}
            if isinstance(error, HOPELESS):
                break
        else:
            row = {"state": "stopped" if summary.interrupted else "done", "tries": tries, "error": ""}
            for name in ("frames", "seconds", "elapsed_seconds"):
                row[name] = round(getattr(summary, name), 3)
            break
    return row


def _fault(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"a fault of LetsTalk, please report it: {error!r:.300} ({Path(where.filename).name}:{where.lineno})"
