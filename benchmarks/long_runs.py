"""The loop around the networks: overhead, time per clip, memory, and the passes that guidance costs."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Options, Row, randomise
from benchmarks.tiny import tiny_autoencoder, tiny_encoder, write_speech
from letstalk_core.generate.settings import GenerateSettings
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.talking_portrait import TalkingPortrait
from letstalk_core.media.audio.features import AudioFeatures
from letstalk_core.networks.configs import AudioProjectionConfig, DiTConfig
from letstalk_core.networks.load import DEMO_FOLDER, ModelBundle, build_model, load_bundle
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.sampling.clip import Clip, Guidance, SolverClipSampler, conditioned
from letstalk_core.sampling.denoisers import make_denoiser
from letstalk_core.sampling.long_video import generate_clips, plan_clips
from letstalk_core.sampling.memory_bank import MemoryBank
from letstalk_core.sampling.schedules import make_sigmas

OVERHEAD, FLAT, MEMORY = 0.03, 1.1, 1.05


class _Sink(KeptFrames):
    """Takes frames and forgets them."""

    def write(self, frames: Tensor) -> None: ...


class _Instant(nn.Module):
    """A denoiser that costs nothing, and counts its passes."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config, self.passes = config, 0
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: Tensor, timestep: Tensor, **_: Any) -> Tensor:
        self.passes += len(x)
        return torch.zeros_like(x)


def run_guidance(options: Options) -> list[Row]:
    """Passes of the network per step without guidance, and with that of the audio."""
    config = DiTConfig(hidden_size=32, depth=1, num_heads=1)
    counts, steps = [], 12
    for scale in (1.0, 2.0):
        model = _Instant(config)
        sampler = SolverClipSampler(
            make_denoiser(model), "euler", make_sigmas("flow", steps), Guidance(audio=scale)
        )
        bank = MemoryBank.for_model(config)
        portrait = torch.zeros(1, 32, 4, 4)
        list(_clips(sampler, bank, portrait, config.clip_frames, config))
        counts.append(model.passes / steps)
    return [
        Row(
            what="network passes per step, guidance off",
            against=f"audio guidance: {counts[1]:g}",
            result=f"{counts[0]:g}",
            reach="exactly 1",
            reached=counts[0] == 1,
        )
    ]


def _clips(sampler: Any, bank: MemoryBank, portrait: Tensor, frames: int, config: DiTConfig) -> Any:
    audio = torch.zeros(1, config.clip_frames, 1, config.audio_token_dim)

    def conditions(memory: Tensor, clip: Clip) -> Conditions:
        return Conditions(portrait=portrait, audio=audio, memory=memory)

    return generate_clips(
        conditioned(sampler, conditions),
        plan_clips(frames, config.clip_frames),
        portrait=portrait,
        bank=bank,
        clip_frames=config.clip_frames,
    )


def run_flatness(options: Options) -> list[Row]:
    """Time of a clip against its place in the video, with a network that costs nothing: only the loop is left."""
    clips = 100 if options.quick else 1000
    config = DiTConfig(hidden_size=32, depth=1, num_heads=1)
    sampler = SolverClipSampler(make_denoiser(_Instant(config)), "euler", make_sigmas("flow", 4))
    portrait, bank = torch.zeros(1, 32, 16, 16), MemoryBank.for_model(config)
    features = AudioFeatures((torch.zeros(250, 2, 32) for _ in range(clips)), 16 * clips)
    times, begin = [], time.process_time()
    for clip, _ in _clips(sampler, bank, portrait, 16 * clips, config):
        features.windows(clip.first, clip.count, 5)
        now = time.process_time()
        times.append(now - begin)
        begin = now
    part = clips // 10
    first, last = statistics.median(times[:part]), statistics.median(times[-part:])
    return [
        Row(
            what=f"time per clip, last tenth of {clips} clips",
            against="first tenth",
            result=f"{last / first:.2f}x",
            reach=f"<= {FLAT}x",
            reached=last / first <= FLAT,
            note=f"{first * 1000:.1f} ms and {last * 1000:.1f} ms a clip outside the network",
        )
    ]


class _Timed:
    """Adds up the CPU time inside wrapped functions, which several threads may call at once."""

    def __init__(self) -> None:
        self.calls: list[float] = []

    @property
    def seconds(self) -> float:
        return sum(self.calls)

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.calls.append(time.thread_time() - begin)

        return timed


def run_overhead(options: Options) -> list[Row]:
    """Share of a run of the demo model that is neither a network nor the autoencoder, each on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _overhead(options)
    finally:
        torch.set_num_threads(threads)


def _overhead(options: Options) -> list[Row]:
    bundle = load_bundle(DEMO_FOLDER, device="cpu")
    clips = 2 if options.quick else 8
    timed = _Timed()
    for part, name in (
        (bundle.dit, "forward"),
        (bundle.audio_projection, "forward"),
        (bundle.autoencoder, "decode"),
        (bundle.autoencoder, "encode"),
        (bundle.audio_encoder, "conv_features"),
        (bundle.audio_encoder, "contextualise"),
    ):
        setattr(part, name, timed.wrap(getattr(part, name)))
    portrait = torch.full((256, 256, 3), 128, dtype=torch.uint8)
    sound = torch.randn(round(clips * 16 / 25 * 16000)) * 0.1
    settings = GenerateSettings(steps=2) if options.quick else GenerateSettings()
    begin = time.process_time()
    TalkingPortrait(bundle).generate(portrait, sound, _Sink(), settings)
    total = time.process_time() - begin
    share = 1 - timed.seconds / total
    return [
        Row(
            what=f"overhead of the loop, demo model, {clips} clips",
            against="total",
            result=f"{100 * share:.1f} %",
            reach=f"<= {100 * OVERHEAD:g} %",
            reached=share <= OVERHEAD,
            note=f"{1000 * total / (16 * clips):.0f} ms a frame on one thread, float32, no video file",
            limit="the demo's network is so small that the solver's arithmetic and the audio windows show",
        )
    ]


def run_memory(options: Options) -> list[Row]:
    """Peak resident memory of whole runs on recordings of two lengths, each in a process of its own."""
    short, long = (0.1, 0.5) if options.quick else (1, 60)
    peaks = [_peak(minutes) for minutes in (short, long)]
    return [
        Row(
            what=f"peak resident memory, {long:g} min of audio",
            against=f"{short:g} min",
            result=f"{peaks[1] / peaks[0]:.2f}x",
            reach=f"<= {MEMORY}x",
            reached=peaks[1] / peaks[0] <= MEMORY,
            note=f"{peaks[0] / 2**20:.0f} and {peaks[1] / 2**20:.0f} MiB, tiny networks, the sound in a file",
        )
    ]


def _peak(minutes: float) -> int:
    """Bytes, of `python -m benchmarks.long_runs MINUTES`."""
    command = [sys.executable, "-m", "benchmarks.long_runs", str(minutes)]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["peak"])


def tiny_bundle() -> ModelBundle:
    """Networks so small that an hour of video takes minutes; the shapes of what flows between them are real."""
    autoencoder = tiny_autoencoder((4, 4, 4, 4, 8, 32), (0,) * 6, channels=32, size=512)
    encoder = tiny_encoder(32, 1, heads=1)
    projection = AudioProjectionConfig(layers=1, encoder_dim=32, hidden_size=8, tokens=2, token_dim=32)
    dit = DiTConfig(hidden_size=32, depth=1, num_heads=1, audio_token_dim=32, mlp_ratio=1.0, grid_size=(2, 2))
    return ModelBundle(*(randomise(build_model(c)) for c in (autoencoder, encoder, projection, dit)))


def _measure(minutes: float) -> dict[str, int]:
    """Generate once from a file of so many minutes; the peak of this process in bytes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        write_speech(path, minutes * 60)
        portrait = torch.full((64, 64, 3), 128, dtype=torch.uint8)
        TalkingPortrait(tiny_bundle()).generate(portrait, path, _Sink(), GenerateSettings(steps=1))
    return {"peak": _peak_bytes()}


def _peak_bytes() -> int:
    """Most resident memory of this program. On Linux `ru_maxrss` counts the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(_measure(float(sys.argv[1]))))
