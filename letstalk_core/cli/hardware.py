"""Options of several commands that say where and with how much to compute, checked before any work is done."""

from __future__ import annotations

import ctypes
import os

import torch

from ..errors import ConfigError, first_line

FEW_CORES = 4


def at_least(least: int, **values: int | None) -> None:
    """Raises: ConfigError naming the first value that is given and less."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ConfigError(f"{name}={value} must be at least {least}")


def check_share(first: int, stride: int) -> None:
    """Which part of the work this process does. Raises: ConfigError."""
    at_least(1, stride=stride)
    if not 0 <= first < stride:
        raise ConfigError(f"first={first} must be in 0..{stride - 1}: --stride {stride} processes count from 0")


def use_threads(count: int | None) -> None:
    """CPU threads of torch; None leaves its default. Raises: ConfigError."""
    at_least(1, threads=count)
    if count is not None:
        torch.set_num_threads(count)


def threads_of_run(count: int | None) -> int | None:
    """`count`, or where it is None and there are up to four cores half of them; None leaves torch's default.

    A run samples, decodes and carries detail at once, and on few cores the threads of each are in the others' way:
    on two, a photograph is an eighth faster with one each.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count is not None or cores > FEW_CORES or "OMP_NUM_THREADS" in os.environ:
        return count
    return (cores + 1) // 2


def keep_freed_memory() -> None:
    """Let the C library keep blocks of up to 32 MiB that are freed, where it is glibc; elsewhere nothing changes.

    It would give them back to the system at once, which maps and clears new ones for the next result: an eighth of
    the time of the demo model on a CPU. 32 MiB is the most that glibc takes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def choose_device(name: str) -> torch.device:
    """A device that works; "auto" is the GPU if there is one. Raises: ConfigError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {name!r} cannot be used ({first_line(error)}); choose cpu or another") from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """A dtype by name; "auto" is bfloat16 on GPUs and processors that multiply it, else float32."""
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return getattr(torch, name)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without the instruction a processor widens every number first, which is slower than float32.
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and ask is not None and bool(ask())
