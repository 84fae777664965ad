"""One denoising step of size B: against softmax over space, against Hallo's class, over resolutions."""

from __future__ import annotations

import dataclasses
import gc
import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.hallo import HalloClass
from benchmarks.harness import Options, Row, paired, randomise, ratio, seconds
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.presets import DIT
from letstalk_core.networks.transformer.dit import LetsTalkDiT

FACTOR = 32  # pixels per token
AUDIO_TOKENS = 32
HALLO_REACH = {torch.float32: 16.0, torch.bfloat16: 30.0}
LINEAR = 1.1  # exponent in tokens up to which cost counts as linear


def _pair(config: DiTConfig, options: Options, dtype: torch.dtype) -> dict[str, LetsTalkDiT]:
    """The same weights with linear and with softmax attention over space."""
    linear = randomise(LetsTalkDiT(config, device="meta", dtype=dtype).to_empty(device=options.device))
    softmax = LetsTalkDiT(dataclasses.replace(config, spatial_attention="softmax"), device="meta")
    softmax.load_state_dict(linear.state_dict(), assign=True)
    return {"linear": linear, "softmax": softmax.eval()}


def _step(dit: LetsTalkDiT, frames: int, size: int, options: Options, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A later step of a clip: what does not change between the steps is already in the cache."""
    config, side = dit.config, size // FACTOR

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape).to(options.device, dtype)

    inputs: tuple[Any, ...] = (
        noise(1, frames, config.in_channels, side, side),
        torch.tensor([500.0], device=options.device),
        noise(1, config.in_channels, side, side),
        noise(1, config.bank_frames, config.in_channels, side, side),
        noise(1, frames, AUDIO_TOKENS, config.audio_token_dim),
    )
    cache: dict[str, Any] = {}
    return lambda: dit(*inputs, cache=cache)


def run(options: Options) -> list[Row]:
    """Rows of the step for each dtype."""
    rows = []
    for dtype in options.dtypes:
        rows += _step_rows(dtype, options)
        gc.collect()
    return rows


def _step_rows(dtype: torch.dtype, options: Options) -> list[Row]:
    """One step of three denoisers in turn. The UNet gets fewer frames: its cost per frame hardly changes."""
    config = DIT["S" if options.quick else "B"]
    config = dataclasses.replace(config, depth=1 if options.quick else config.depth)
    frames, theirs, size = (2, 2, 128) if options.quick else (config.clip_frames, 2, 512)
    hallo = HalloClass(theirs, size, options.device, dtype, quick=options.quick)
    pair = _pair(config, options, dtype)
    steps = {name: _step(dit, frames, size, options, dtype) for name, dit in pair.items()}
    with torch.inference_mode():
        hallo.reference()  # once a clip, not measured
        for step in steps.values():
            step()  # fills the cache
    times = paired({**steps, "hallo": hallo.step}, options, long=True)
    counts = {"linear": frames, "softmax": frames, "hallo": theirs}
    each = {name: [t / counts[name] for t in values] for name, values in times.items()}
    faster, text = ratio(each["hallo"], each["linear"])
    reach, name = HALLO_REACH[dtype], str(dtype)[6:]
    return [
        Row(
            what=f"DiT-B step, {frames} frames, {size} px, {name}",
            against="same network, softmax over space",
            result=ratio(each["softmax"], each["linear"])[1],
            note=f"{seconds(each['linear'])} against {seconds(each['softmax'])} a frame; spatial attention is a"
            f" small part of a step at {size} px",
        ),
        Row(
            what=f"DiT-B step, time per frame, {size} px, {name}",
            against="Hallo-class: SD 1.5 UNet, motion modules, reference",
            result=text,
            reach=f">= {reach:g}x",
            reached=faster >= reach,
            note=f"{seconds(each['linear'])} against {seconds(each['hallo'])} a frame and step",
            limit="nine tenths of our step are products of matrices at the speed of the library",
            headline=dtype == torch.float32,
        ),
    ]


def run_resolution(options: Options) -> list[Row]:
    """How cost grows with tokens: the slope of log time over log tokens, two blocks of B, one frame."""
    sizes = (128, 256, 512) if options.quick else (256, 512, 1024, 2048)
    times: dict[str, list[list[float]]] = {"linear": [], "softmax": []}
    for size in sizes:
        config = dataclasses.replace(DIT["S" if options.quick else "B"], depth=2)
        repeats = max(1, (512 // size) ** 2)
        pair = _pair(config, options, torch.float32)
        steps = {name: _step(dit, 1, size, options, torch.float32) for name, dit in pair.items()}
        measured = paired(
            {name: (lambda f=f, r=repeats: [f() for _ in range(r)]) for name, f in steps.items()},
            dataclasses.replace(options, rounds=min(3, options.rounds)),
        )
        for name, values in measured.items():
            times[name].append([t / repeats for t in values])
    tokens = [(size // FACTOR) ** 2 for size in sizes]
    slopes = {name: _exponents(tokens, values) for name, values in times.items()}
    texts = {name: f"{statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})" for name, s in slopes.items()}
    per_token = [f"{statistics.median(t) / n * 1e6:.0f}" for n, t in zip(tokens, times["linear"], strict=True)]
    return [
        Row(
            what=f"exponent of cost in tokens, {sizes[0]} to {sizes[-1]} px",
            against=f"softmax: {texts['softmax']}",
            result=texts["linear"],
            reach=f"<= {LINEAR}",
            reached=statistics.median(slopes["linear"]) <= LINEAR,
            note=f"microseconds per token at each size: {', '.join(per_token)}",
            limit="fixed costs of a call weigh on the smallest size",
        )
    ]


def _exponents(tokens: list[int], times: list[list[float]]) -> list[float]:
    """The least-squares slope of log time over log tokens, of each round."""
    xs = [math.log(n) for n in tokens]
    mean = statistics.fmean(xs)
    slopes = []
    for values in zip(*times, strict=True):
        ys = [math.log(t) for t in values]
        middle = statistics.fmean(ys)
        rise = sum((x - mean) * (y - middle) for x, y in zip(xs, ys, strict=True))
        slopes.append(rise / sum((x - mean) ** 2 for x in xs))
    return slopes
