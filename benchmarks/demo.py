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
    """A row for a drawn face and one for a photograph: the default dtype of this machine against float32."""
    return [_row(options, name, what) for name, what in (("ada.png", "a drawn face"), ("eva.jpg", "a photograph"))]


def _row(options: Options, name: str, what: str) -> Row:
    portrait, speech = DEMO_FOLDER / "portraits" / name, DEMO_FOLDER / "speech" / "hello.wav"
    more = ("--steps", "1") if options.quick else ()
    best = {"auto": 0.0, "float32": 0.0}
    for _ in range(1 if options.quick else 2):
        for dtype in best:
            best[dtype] = max(best[dtype], _frames_per_second(portrait, speech, dtype, *more))
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = f"{count} core{'s' if count > 1 else ''}"
    return Row(
        what=f"demo model, {what}, 256 px, `letstalk generate` as it comes, {cores}",
        against=f"real time, {FPS} frames/s",
        result=f"{best['auto']:.1f} frames/s, real-time factor {best['auto'] / FPS:.2f}",
        reach=f">= {FPS} frames/s",
        reached=best["auto"] >= FPS,
        note=f"float32: {best['float32']:.1f} frames/s; whole runs, the video file written",
        limit="each step is a pass of the denoiser, then come the decoder, carry and a photograph's face",
        headline=True,
    )


def _frames_per_second(portrait: Path, speech: Path, dtype: str, *more: str) -> float:
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "letstalk_core.cli", "generate", str(portrait), str(speech), *more]
        command += ["-o", str(Path(folder) / "out.mp4"), "--device", "cpu", "--dtype", dtype, "--json", "--quiet"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(out)["frames_per_second"])
