"""`letstalk evaluate -o DIR`: measure a model on newly drawn people who say held-out sentences."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation.report import ClipResult
    from ..models import ModelBundle
    from ..pipeline import GenerateSettings

__all__ = ["BundleSubject", "add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on drawn faces",
        description="Draw people who are in no training data, let the model speak held-out sentences with their"
        " portraits, and compare lips, colours, drift and sharpness with the truth. Needs espeak-ng.",
    )
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="DIR", help="folder for report.json, report.md, plots and sheets")
    add("--model", metavar="DIR", help="model folder (default: the demo model)")
    add("--clips", type=int, default=24, help="people to test (default 24)")
    add("--seconds", type=float, default=6.4, help="length of each clip (default 6.4)")
    add("--seed", type=int, default=0, help="same seed, same people and sentences (default 0)")
    add("--steps", type=int, help="sampling steps per clip (default: by model)")
    add("--solver", help="euler, heun, dpmpp_2m or ddpm (default: by model)")
    add("--cfg-audio", type=float, metavar="SCALE", help="audio guidance; 1 is none (default: by model)")
    add(
        "--memory-noise",
        type=float,
        metavar="SIGMA",
        help="noise on remembered frames, 0 to 1 (default: by model)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="of the models")
    add("--threads", type=int, help="CPU threads")
    add("--overwrite", action="store_true", help="replace an existing report")
    add("--json", action="store_true", help="print the results as JSON on stdout")
    add("--quiet", action="store_true", help="print errors only")
    parser.set_defaults(run=run)


class BundleSubject:
    """A model bundle as the suite sees it. Raises: ConfigError for a model of frames that are not square."""

    def __init__(self, bundle: ModelBundle, settings: GenerateSettings) -> None:
        from ..pipeline import TalkingPortrait

        self.bundle, self.settings = bundle, settings.resolve(bundle)
        assert self.settings.size is not None and self.settings.fps is not None
        height, width = self.settings.size
        if height != width:
            raise ConfigError(f"the test faces are square, but the model makes frames of {width}x{height} pixels")
        self.fps, self.size = self.settings.fps, height
        self._pipeline = TalkingPortrait(bundle)

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int) -> Tensor:
        from dataclasses import replace

        frames = _Frames()
        self._pipeline.generate(portrait, waveform, frames, replace(self.settings, seed=seed))
        return frames.all()

    def round_trip(self, frames: Tensor) -> Tensor:
        import torch

        from ..pixels import from_unit, to_unit

        autoencoder, done = self.bundle.autoencoder, []
        with torch.no_grad():
            for part in frames.split(self.settings.decode_batch):
                x = to_unit(part.to(self.bundle.device)).to(self.bundle.dtype)
                done.append(from_unit(autoencoder.decode(autoencoder.encode(x))).cpu())
        return torch.cat(done)


class _Frames:
    """A FrameSink that keeps everything; test clips are short."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def write(self, frames: Tensor) -> None:
        self._parts.append(frames.clone())

    def close(self, partial: bool = False) -> None:
        if partial:  # Ctrl-C: half a clip is no result
            raise KeyboardInterrupt

    def abort(self) -> None:
        self._parts = []

    def all(self) -> Tensor:
        import torch

        return torch.cat(self._parts)


def run(args: argparse.Namespace) -> int:
    from ..evaluation.suite import run_suite
    from ..memory_bank import MemorySettings
    from ..models import load_bundle
    from ..pipeline import GenerateSettings
    from .hardware import choose_device, choose_dtype, use_threads

    folder = Path(args.output)
    if (folder / "report.json").exists() and not args.overwrite:
        raise OutputError(f"{folder / 'report.json'}: exists already; add --overwrite or choose another folder")
    use_threads(args.threads)
    device = choose_device(args.device)
    bundle = load_bundle(args.model, device=device, dtype=choose_dtype(args.dtype, device))
    memory = MemorySettings(noise_sigma=args.memory_noise) if args.memory_noise is not None else None
    settings = GenerateSettings(steps=args.steps, solver=args.solver, cfg_audio=args.cfg_audio, memory=memory)
    started = time.monotonic()

    def progress(done: int, clips: int, result: ClipResult) -> None:
        if not args.quiet:
            jaw = result.metrics["lips correlation: jaw"]
            seconds = time.monotonic() - started
            sys.stderr.write(f"clip {done}/{clips}: jaw correlation {jaw:.2f}, {seconds:.0f} s\n")

    subject = BundleSubject(bundle, settings)
    resolved = {k: v for k, v in subject.settings.to_dict().items() if k != "seed"}
    report = run_suite(
        subject,
        clips=args.clips,
        seconds=args.seconds,
        seed=args.seed,
        out_dir=folder,
        notes={"steps": subject.settings.steps, "generation": resolved, "models_sha256": bundle.hashes()},
        progress=progress,
    )
    if args.json:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    elif not args.quiet:
        sys.stdout.write(report.to_markdown())
    return 0
