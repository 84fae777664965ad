"""How things are measured: interleaved in pairs, as ratios with their spread, on a machine that is described."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

LOADED = 0.3  # part of a core, times the cores, that may be taken before the start
SAME = 2e-5  # of the largest value: float32 with sums in another order


@dataclass(frozen=True, kw_only=True)
class Options:
    """quick: small networks and few repetitions, to see that everything runs; its numbers mean nothing."""

    quick: bool = False
    rounds: int = 5
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. `reached` is None where there is nothing to reach, or where it cannot be judged.

    limit: what keeps it from its goal, shown where the goal is missed. headline: also in the README of the pack.
    """

    what: str
    against: str
    result: str
    reach: str = ""
    reached: bool | None = None
    note: str = ""
    limit: str = ""
    headline: bool = False


def clock(device: torch.device) -> float:
    """Seconds. On one CPU thread those that this process computed, which other processes disturb least."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


@torch.inference_mode()
def paired(
    functions: Mapping[str, Callable[[], object]], options: Options, *, long: bool = False
) -> dict[str, list[float]]:
    """Seconds of each function in each round. Every round runs all, each time beginning with another one.

    long: calls of many seconds, which the caller has made once already: two rounds, without one to warm up.
    """
    names = list(functions)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in () if long else names:
        functions[name]()  # allocations and kernel choices of the first call
    for i in range(min(2, options.rounds) if long or options.quick else options.rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            begin = clock(options.device)
            functions[name]()
            times[name].append(clock(options.device) - begin)
    return times


def ratio(other: list[float], ours: list[float]) -> tuple[float, str]:
    """How many times faster ours is: median over the rounds, and in words with the lowest and highest."""
    ratios = sorted(a / b for a, b in zip(other, ours, strict=True))
    middle = statistics.median(ratios)
    return middle, f"{middle:.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def seconds(times: list[float]) -> str:
    """The median in a readable unit."""
    value = statistics.median(times)
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"


def identical(a: Tensor, b: Tensor) -> tuple[bool, str]:
    """Whether two float32 outputs agree, and the largest difference against the largest value in words."""
    difference = ((a - b).abs().max() / b.abs().max()).item()
    return difference < SAME, f"largest difference {difference:.0e}"


@torch.no_grad()
def randomise(module: nn.Module) -> nn.Module:
    """Random weights that keep activations near 1, cut from one pool of noise: drawing billions takes minutes."""
    pool = torch.randn((1 << 20) + 7, generator=torch.Generator().manual_seed(0))
    for name, value in module.named_parameters():
        if value.ndim < 2 and name.endswith("weight"):
            value.fill_(1)
            continue
        size = value[0].numel() ** -0.5 if value.ndim > 1 else 0.1
        flat = value.view(-1)
        for start in range(0, flat.numel(), pool.numel()):
            part = flat[start : start + pool.numel()]
            part.copy_(pool[: part.numel()] * size)
    return module.eval().requires_grad_(False)


def fast_bfloat16(device: torch.device) -> tuple[bool, str]:
    """Whether bfloat16 matrix products are faster than float32 ones here, and by how much in words."""
    with torch.inference_mode():
        matrices = {
            dtype: torch.randn(512, 512, device=device).to(dtype) for dtype in (torch.float32, torch.bfloat16)
        }
        options = Options(rounds=5, device=device)
        times = paired({str(k): (lambda m=m: m @ m) for k, m in matrices.items()}, options)
    value, words = ratio(times["torch.float32"], times["torch.bfloat16"])
    return value > 1.2, words


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        families = [line.partition(":")[2].strip() for line in lines if line.startswith("cpu family")]
        return f"{names[0]} (family {families[0]})"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def machine(options: Options, cores: int = 0) -> tuple[str, bool]:
    """One line about where and when this was measured, and whether something else took the cores it needs.

    `cores` is how many that is, by default one per thread.
    """
    total = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    where = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else _cpu()
    date = datetime.date.today().isoformat()
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' if count > 1 else ''} of {os.cpu_count()} cores"
    flags = torch.backends.cpu.get_cpu_capability()
    text = f"{date}, {where}, {threads}, {flags}, torch {torch.__version__}, load {load:.1f} from other work"
    return text, load > total - min(total, cores or count) + LOADED * total
