"""The demo model end to end: frames per second of whole runs of `letstalk generate` on all cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import Options, Row
from letstalk_core.networks.load import DEMO_FOLDER

FPS = 25


def run(options: Options) -> list[Row]:
    """One row: the default dtype of this machine against float32."""
    portrait = sorted((DEMO_FOLDER / "portraits").iterdir())[0]
    speech = sorted(p for p in (DEMO_FOLDER / "speech").iterdir() if p.suffix in (".wav", ".flac", ".mp3"))[0]
    more = ("--steps", "1") if options.quick else ()
    runs = 1 if options.quick else 2
    best = {"auto": 0.0, "float32": 0.0}
    for _ in range(runs):
        for dtype in best:
            best[dtype] = max(best[dtype], _frames_per_second(portrait, speech, dtype, *more))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [
        Row(
            what=f"demo model, 256 px, `letstalk generate` as it comes, {cores} core{'s' if cores > 1 else ''}",
            against=f"real time, {FPS} frames/s",
            result=f"{best['auto']:.1f} frames/s, real-time factor {best['auto'] / FPS:.2f}",
            reach=f">= {FPS} frames/s",
            reached=best["auto"] >= FPS,
            note=f"float32: {best['float32']:.1f} frames/s; whole runs, the video file written",
            limit="each step is a pass of the denoiser, then comes the decoder; fewer --steps are faster",
            headline=True,
        )
    ]


def _frames_per_second(portrait: Path, speech: Path, dtype: str, *more: str) -> float:
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "letstalk_core.cli", "generate", str(portrait), str(speech), *more]
        command += ["-o", str(Path(folder) / "out.mp4"), "--device", "cpu", "--dtype", dtype, "--json", "--quiet"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(out)["frames_per_second"])
