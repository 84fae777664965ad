"""Small parts of the training: stages, seeds, precision, signals, batches prepared ahead."""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from letstalk_core.networks.checkpoint import load_into, load_tensors, read_header
from letstalk_core.networks.configs import Config

from .config import Recipe

T = TypeVar("T")
logger = logging.getLogger(__name__)
Batch = dict[str, Tensor]


def seed_of(*parts: object) -> int:
    """A seed that depends on all parts: the randomness of (run seed, step, …) needs no saved generator state."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@cache
def fast_bfloat16_cpu() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; without that, it is up to ten times slower than float32."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def choose_precision(name: str, device: torch.device) -> str:
    """accelerate's name ("no" or "bf16") of a recipe's precision."""
    if name == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else fast_bfloat16_cpu()
        return "bf16" if fast else "no"
    return "no" if name == "fp32" else name


def of_the_first(accelerator: Any, *values: float) -> list[float]:
    """The numbers that the first of all processes has."""
    if accelerator.num_processes == 1:
        return list(values)
    from accelerate.utils import broadcast

    shared: list[float] = broadcast(torch.tensor(values, dtype=torch.float64, device=accelerator.device)).tolist()
    return shared


def of_all(accelerator: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Summed over all processes."""
    summed: dict[str, Tensor] = accelerator.reduce(tensors, "sum") if accelerator.num_processes > 1 else tensors
    return summed


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag that the loop reads after each step; a second one stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # signals can be handled in the main thread only
            return
        previous = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        logger.info("stopping after this step (signal %d); again to stop at once", number)


class Prefetcher(Generic[T]):
    """Makes items `first`, `first + 1`, … ahead of use in threads, and hands them out in order.

    `plan(index)` runs in the caller's thread, in order, and returns the job that makes item `index`.
    """

    def __init__(self, plan: Callable[[int], Callable[[], T]], first: int, workers: int) -> None:
        self._plan, self._next = plan, first
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batch") if workers else None
        self._ahead = workers + 1 if workers else 0
        self._queue: deque[Future[T]] = deque()

    def __next__(self) -> T:
        if self._pool is None:
            self._next += 1
            return self._plan(self._next - 1)()
        while len(self._queue) < self._ahead:
            self._queue.append(self._pool.submit(self._plan(self._next)))
            self._next += 1
        return self._queue.popleft().result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


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


class Stopped(Exception):
    """A signal asked to stop; the state is saved, and the same command goes on. `signal` is its number."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


def load_part(network: nn.Module, path: str, kind: str) -> Config:
    """Fill a network with the part of its kind in a model file; returns that part's config.

    Raises: CheckpointError.
    """
    name, config = read_header(path).part(kind)
    load_into(network, load_tensors(path, prefix=f"{name}."), path)
    return config
