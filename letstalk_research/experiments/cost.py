"""What one pass through the denoiser costs at growing resolution, linear against softmax attention over space."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence

import torch

from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.transformer.dit import LetsTalkDiT

__all__ = ["exponent", "time_passes"]

AUDIO_TOKENS = 4


@torch.no_grad()
def time_passes(
    configs: Mapping[str, DiTConfig], sides: Sequence[int], *, repeats: int = 5, device: torch.device | str = "cpu"
) -> dict[str, list[list[float]]]:
    """Seconds of one pass over one frame for each config and each side of the token grid: `repeats` values.

    On a CPU this is processor time.

    The configs take turns, so that a machine that is busy for a while does not favour one of them.
    """
    clock = time.perf_counter if torch.device(device).type == "cuda" else time.process_time
    times: dict[str, list[list[float]]] = {name: [] for name in configs}
    for side in sides:
        calls = {}
        for name, config in configs.items():
            dit = LetsTalkDiT(config).to(device).eval()
            dit.init_weights()
            c = config.in_channels
            inputs = (
                torch.randn(1, 1, c, side, side, device=device),
                torch.tensor([500.0], device=device),
                torch.randn(1, c, side, side, device=device),
                torch.randn(1, config.bank_frames, c, side, side, device=device),
                torch.randn(1, 1, AUDIO_TOKENS, config.audio_token_dim, device=device),
            )
            calls[name] = (dit, inputs)
            dit(*inputs)  # the first pass is slower
        found: dict[str, list[float]] = {name: [] for name in configs}
        for _ in range(repeats):
            for name, (dit, inputs) in calls.items():
                begun = clock()
                dit(*inputs)
                if torch.device(device).type == "cuda":
                    torch.cuda.synchronize()
                found[name].append(clock() - begun)
        for name, values in found.items():
            times[name].append(values)
    return times


def exponent(sizes: Sequence[float], values: Sequence[Sequence[float]]) -> float:
    """Least-squares slope of log median time over log size."""
    xs = [math.log(size) for size in sizes]
    ys = [math.log(statistics.median(times)) for times in values]
    x_mean, y_mean = statistics.fmean(xs), statistics.fmean(ys)
    rise = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return rise / sum((x - x_mean) ** 2 for x in xs)
