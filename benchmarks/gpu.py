"""B and L at 512 px on a CUDA GPU: frames per second, share of its peak, memory, real-time factor."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import torch
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
PIXELS, QUICK_PIXELS = 512, 64
DTYPE = torch.bfloat16


def run(options: Options) -> list[Row]:
    """Rows of each size, number of steps, and with and without torch.compile; none without a CUDA GPU."""
    cuda = torch.cuda.is_available()
    if not (cuda or options.quick):
        return []
    rows = []
    for preset in ("S",) if options.quick else ("B", "L"):
        for compiled in (False, True) if cuda else (False,):
            rows += _rows(preset, compiled, torch.device("cuda" if cuda else "cpu"), options.quick)
            gc.collect()
    return rows


@torch.inference_mode()
def _rows(preset: str, compiled: bool, device: torch.device, quick: bool) -> list[Row]:
    config, codec, size = DIT[preset], AUTOENCODER["f32c32-sana-1.1"], QUICK_PIXELS if quick else PIXELS
    if quick:
        config, codec = dataclasses.replace(config, depth=1), narrowed(codec)
    dit = randomise(LetsTalkDiT(config, device=device, dtype=DTYPE))
    decoder = randomise(AutoencoderDC(codec, device=device, dtype=DTYPE).decoder)
    frames, latent = config.clip_frames, (config.in_channels, size // 32, size // 32)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, device=device, dtype=DTYPE)

    start, audio = noise(frames, *latent), noise(frames, AUDIO_TOKENS, config.audio_token_dim)
    given = {"portrait": noise(*latent), "memory": noise(config.bank_frames, *latent), "audio": audio}
    step_work = _operations(lambda: dit(start, torch.tensor([500.0], device=device), **given))
    decoder_work = _operations(lambda: decoder(start[0]))
    n = 256 if quick else 8192
    matrix = noise(n, n)[0]
    peak = max(2 * n**3 / _seconds(lambda: matrix @ matrix, device) for _ in range(6))
    if compiled:
        dit.compile()
        decoder.compile()
    conditions, rows = Conditions(**given), []
    for steps in (2,) if quick else STEPS:
        sample = SolverClipSampler(make_denoiser(dit, config), "euler", make_sigmas(config.prediction, steps))

        def clip(sample: SolverClipSampler = sample) -> torch.Tensor:
            latents = sample(start.float(), conditions, Clip(0, 0, frames))[0].to(DTYPE)
            return torch.cat([decoder(part) for part in latents.split(8)]).cpu()

        clip()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        each = _seconds(clip, device, 1 if quick else 3) / frames
        memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
        share = (steps * step_work + decoder_work) / frames / each / peak
        rows.append(
            Row(
                what=f"DiT-{preset} and DC-AE decode, {size} px, {steps} steps, bfloat16"
                f"{', compiled' if compiled else ''}",
                against=f"real time, {FPS} frames/s",
                result=f"{1 / each:.1f} frames/s, real-time factor {1 / each / FPS:.2f}",
                note=f"{100 * share:.0f} % of the {peak / 1e12:.0f} TFLOP/s of a large product of matrices; peak"
                f" memory {memory:.1f} GiB",
            )
        )
    return rows


def _seconds(call: Callable[[], Any], device: torch.device, repeats: int = 1) -> float:
    begin = clock(device)
    for _ in range(repeats):
        call()
    return (clock(device) - begin) / repeats


def _operations(call: Callable[[], Any]) -> int:
    """Floating-point operations of a call, counted as it runs."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
