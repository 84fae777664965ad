"""B and L at 512 px on a CUDA GPU: frames per second, share of its peak, memory, real-time factor."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.autoencoder import narrowed
from benchmarks.harness import Options, Row, clock, randomise
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.presets import AUTOENCODER, DIT
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.networks.transformer.dit import LetsTalkDiT
from letstalk_core.sampling.clip import Clip, SolverClipSampler
from letstalk_core.sampling.denoisers import make_denoiser
from letstalk_core.sampling.schedules import make_sigmas

STEPS = (8, 20, 30)
FPS, AUDIO_TOKENS = 25, 32
PIXELS = 512


def run(options: Options) -> list[Row]:
    """Rows of each size, number of steps, and with and without torch.compile; none without a CUDA GPU."""
    device = options.device
    if not torch.cuda.is_available() and not options.quick:
        return []
    if device.type != "cuda" and torch.cuda.is_available():
        device = torch.device("cuda")
    rows = []
    for preset in ("S",) if options.quick else ("B", "L"):
        for compiled in (False, True) if device.type == "cuda" else (False,):
            rows += _rows(preset, compiled, device, options.quick)
            gc.collect()
    return rows


@torch.inference_mode()
def _rows(preset: str, compiled: bool, device: torch.device, quick: bool) -> list[Row]:
    config, codec = DIT[preset], AUTOENCODER["f32c32-sana-1.1"]
    size, steps = (64, (2,)) if quick else (PIXELS, STEPS)
    if quick:
        codec = narrowed(codec)
        config = dataclasses.replace(config, depth=1)
    place: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    dit = randomise(LetsTalkDiT(config, **place))
    decoder = randomise(AutoencoderDC(codec, **place).decoder)
    peak = _peak_flops(device, quick)
    cost = _flops(dit, decoder, config, size, place)
    if compiled:
        dit.compile()
        decoder.compile()
    rows = []
    for count in steps:
        clip = _clip(dit, decoder, config, size, count, place)
        clip()
        _reset(device)
        repeats = 1 if quick else 3
        begin = clock(device)
        for _ in range(repeats):
            clip()
        each = (clock(device) - begin) / repeats / config.clip_frames
        memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
        work = (count * cost[0] + cost[1]) / config.clip_frames
        rows.append(
            Row(
                what=f"DiT-{preset} and DC-AE decode, {size} px, {count} steps, bfloat16"
                f"{', compiled' if compiled else ''}",
                against=f"real time, {FPS} frames/s",
                result=f"{1 / each:.1f} frames/s, real-time factor {1 / each / FPS:.2f}",
                note=f"{100 * work / each / peak:.0f} % of the {peak / 1e12:.0f} TFLOP/s of a large product of"
                f" matrices; peak memory {memory:.1f} GiB",
            )
        )
    return rows


def _inputs(config: Any, size: int, place: dict[str, Any]) -> tuple[Tensor, Conditions]:
    side = size // 32
    frames, channels = config.clip_frames, config.in_channels
    conditions = Conditions(
        portrait=torch.randn(1, channels, side, side, **place),
        audio=torch.randn(1, frames, AUDIO_TOKENS, config.audio_token_dim, **place),
        memory=torch.randn(1, config.bank_frames, channels, side, side, **place),
    )
    return torch.randn(1, frames, channels, side, side, device=place["device"]), conditions


def _clip(
    dit: Any, decoder: Any, config: Any, size: int, steps: int, place: dict[str, Any]
) -> Callable[[], Tensor]:
    noise, conditions = _inputs(config, size, place)
    sample = SolverClipSampler(make_denoiser(dit, config), "euler", make_sigmas(config.prediction, steps))

    def clip() -> Tensor:
        latents = sample(noise, conditions, Clip(0, 0, config.clip_frames))[0].to(place["dtype"])
        return torch.cat([decoder(part) for part in latents.split(8)]).to("cpu")

    return clip


def _flops(dit: Any, decoder: Any, config: Any, size: int, place: dict[str, Any]) -> tuple[int, int]:
    """Floating-point operations of a step and of decoding a clip, counted on the calls themselves."""
    noise, conditions = _inputs(config, size, place)
    counts = []
    x, level = noise.to(place["dtype"]), torch.tensor([500.0], device=noise.device)
    given = (conditions.portrait, conditions.memory, conditions.audio)
    for call in (lambda: dit(x, level, *given), lambda: decoder(x[0])):
        with FlopCounterMode(display=False) as counter:
            call()
        counts.append(int(counter.get_total_flops()))
    return counts[0], counts[1]


def _peak_flops(device: torch.device, quick: bool) -> float:
    """Operations per second of a large bfloat16 product of matrices, the best of several."""
    n = 256 if quick else 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(6):
        begin = clock(device)
        _ = a @ a
        best = max(best, 2 * n**3 / (clock(device) - begin))
    return best


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
