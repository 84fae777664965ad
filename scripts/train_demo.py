#!/usr/bin/env python3
"""Train the demo model from drawn data in one go and a given time: a GPU with some CPU cores needs ten minutes.

    python scripts/train_demo.py WORK --minutes 9.5 --out MODELS [--from-bundled]

Faces are drawn and sentences spoken by several processes; autoencoder and audio encoder train beside each other
while clips are still being added; the clips are encoded; in what is left of the time the denoiser trains and,
beside it, the decoder alone, which leaves the latents as they are. The networks are those of the shipped recipes
(`demo_autoencoder`, `demo_audio`, `demo_dit`, `demo_decoder`) with batches for a GPU.
Logs, checkpoints and clips stay in WORK, five megabytes a clip. What was stopped has to begin anew; a finished
stage is trained further by the command in its log, with more `loop.max_minutes`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BUNDLED = ROOT / "letstalk_core" / "demo"
FILES = {
    "autoencoder": "autoencoder.safetensors",
    "audio": "audio_encoder.safetensors",
    "dit": "dit.safetensors",
    "decoder": "autoencoder.safetensors",  # takes the place of the first one in the end
}
VALIDATION_CLIPS = 40
FIRST_CLIPS = 1000  # that the autoencoder waits for
STARTING_S = {"autoencoder": 12.0, "audio": 12.0, "dit": 25.0, "decoder": 12.0}  # before the first step
ENDING_S = 8.0  # after the last one
STOPPING_S = 10.0  # that a process gets to end by itself


def main() -> int:
    args = parse()
    start = time.monotonic()
    job = Job(args, start)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # stops the stages first
    try:
        job.plan()
        job.run()
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        job.stop()
    for name in sorted(set(FILES.values())):
        sys.stdout.write(f"{args.out / name}\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of clips, runs and logs; fastest in memory (/dev/shm)")
    parser.add_argument("--out", type=Path, required=True, help="folder that the three model files are copied to")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all of it (default 9.5)")
    parser.add_argument("--share", type=float, default=0.45, help="of the time until autoencoder and audio end")
    parser.add_argument("--clips", type=int, default=6000, help="to draw (default 6000)")
    parser.add_argument("--utterances", type=int, default=8000, help="for the audio encoder (default 8000)")
    parser.add_argument("--processes", type=int, default=12, help="that draw and encode (default 12)")
    parser.add_argument("--device", default="auto", help="where to draw and encode (default auto)")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--from-bundled", action="store_true", help="start from the bundled model's weights")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STAGE:TABLE.KEY=VALUE",
        dest="overrides",
        help="change a recipe, e.g. --set dit:data.batch_size=32; may be repeated",
    )
    args = parser.parse_args()
    for text in args.overrides:
        if text.partition(":")[0] not in FILES or ":" not in text:
            parser.error(f"--set {text}: needs STAGE:TABLE.KEY=VALUE with a stage of {', '.join(FILES)}")
    for name in ("minutes", "clips", "utterances", "processes"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name} {getattr(args, name)} must be greater than 0")
    if not 0 < args.share < 1:
        parser.error(f"--share {args.share} must be between 0 and 1")
    args.work, args.out = args.work.resolve(), args.out.resolve()
    return args


class Failure(Exception):
    """Why the job cannot go on, for the user: a setting, or a process that ended badly with the end of its log."""


class Job:
    def __init__(self, args: argparse.Namespace, start: float) -> None:
        self.args, self.start = args, start
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.recipes: dict[str, Any] = {}
        self.data, self.logs = args.work / "clips", args.work / "logs"
        for folder in (self.data, self.logs, args.out):
            folder.mkdir(parents=True, exist_ok=True)

    def plan(self) -> None:
        """Read all recipes with their changes before anything is spent on them. Raises: Failure."""
        from letstalk_core.errors import LetsTalkError
        from letstalk_research.training.recipe import load_recipe

        used = [stage for stage in FILES if (self.args.work / stage).exists()]
        if used:
            raise Failure(
                f"{self.args.work}: holds trainings of before ({', '.join(used)}); choose another folder"
            )
        try:
            for stage in FILES:
                settings = self.settings(stage, {"loop.max_minutes": 1.0})
                self.recipes[stage] = load_recipe(kind_of(stage), f"demo_{stage}", settings)
        except LetsTalkError as error:
            raise Failure(str(error)) from None

    def run(self) -> None:
        args, end = self.args, self.args.minutes * 60
        middle = args.share * end
        drawing = [self.draw("train", args.clips, k) for k in range(args.processes)]
        validation = self.draw("val", VALIDATION_CLIPS, 0, processes=1)
        self.speak()
        audio = self.train("audio", middle, {"data.folder": args.work / "sounds"})
        self.wait([validation])
        self.wait_for_clips(min(args.clips, FIRST_CLIPS) + VALIDATION_CLIPS)
        autoencoder = self.train("autoencoder", middle, {"data.folder": self.data})
        self.wait([*drawing, audio, autoencoder])
        models = [self.trained("autoencoder"), self.trained("audio")]
        self.wait([self.encode(k, *models) for k in range(args.processes)])
        denoiser = self.train("dit", end, {"data.folder": self.data, "objective.autoencoder": models[0]})
        decoder = self.train("decoder", end, {"data.folder": self.data, "loop.init": models[0]})
        self.wait([denoiser, decoder])
        self.keep()
        self.say("done")

    # Stages

    def draw(self, split: str, clips: int, first: int, processes: int = 0) -> str:
        share = ["--first", str(first), "--stride", str(processes or self.args.processes)]
        options = ["--clips", str(clips), "--split", split, "--seed", str(self.args.seed), *share]
        return self.call(f"draw-{split}-{first}", "synthesize", self.data, *options, "--device", self.args.device)

    def speak(self) -> None:
        """Speak the sentences that the audio stage would otherwise speak one after another when it begins."""
        recipe, count = self.recipes["audio"], self.args.processes
        objective, folder = recipe.objective, self.args.work / "sounds"
        work = folder, recipe.loop.seed, objective.crop_seconds[1], count
        counts = {"train": objective.utterances, "val": recipe.data.validation_items}
        with multiprocessing.get_context("spawn").Pool(count) as pool:
            shares = pool.starmap_async(speak_share, [(*work, counts, k) for k in range(count)])
            while not shares.ready():
                shares.wait(0.2)
                self.check()
            try:
                shares.get()
            except Exception as error:  # whatever a process met, the user reads one line
                raise Failure(f"speaking sentences ended with {type(error).__name__}: {error}") from None
        self.say("sentences spoken")

    def encode(self, first: int, autoencoder: Path, audio: Path) -> str:
        models = ["--autoencoder", str(autoencoder), "--audio-encoder", str(audio), "--batch", "32"]
        share = ["--first", str(first), "--stride", str(self.args.processes), "--device", self.args.device]
        return self.call(f"encode-{first}", "encode", self.data, *models, *share, "--threads", "1")

    def train(self, stage: str, until: float, changes: dict[str, object]) -> str:
        """Begin a training that ends, with its start and end, `until` seconds after the beginning of all."""
        seconds = until - self.elapsed() - STARTING_S[stage] - ENDING_S
        if seconds <= 0:
            raise Failure(f"no time is left for {stage}; give more --minutes than {self.args.minutes:g}")
        settings = self.settings(stage, {**changes, "loop.max_minutes": round(seconds / 60, 3)})
        options = [part for setting in settings for part in ("--set", setting)]
        return self.call(stage, "train", kind_of(stage), "--config", f"demo_{stage}", *options)

    def settings(self, stage: str, changes: dict[str, object]) -> list[str]:
        """What differs from the shipped recipe, as `letstalk train --set` takes it."""
        bundled = {"loop.init": BUNDLED / FILES[stage]} if self.args.from_bundled else {}
        changes = {**GPU, **GPU_STAGES[stage], "loop.run": self.args.work / stage, **bundled, **changes}
        if stage == "audio":
            changes["objective.utterances"] = self.args.utterances
        mine = [o.split(":", 1) for o in self.args.overrides]
        return [f"{k}={value(v)}" for k, v in changes.items()] + [text for name, text in mine if name == stage]

    def trained(self, stage: str) -> Path:
        return self.args.work / stage / FILES[stage]

    def keep(self) -> None:
        from letstalk_core.files import atomic_path

        for stage, name in FILES.items():
            with atomic_path(self.args.out / name) as temporary:
                shutil.copyfile(self.trained(stage), temporary)

    # Processes

    def call(self, name: str, command: str, *options: object) -> str:
        line = [sys.executable, "-m", "letstalk_core.cli", command, *map(str, options)]
        with (self.logs / f"{name}.log").open("wb") as log:
            log.write(f"{shlex.join(line)}\n".encode())
            log.flush()
            self.running[name] = subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        self.say(f"{name}: started")
        return name

    def check(self) -> None:
        for name, process in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[name]
            if process.returncode:
                log = (self.logs / f"{name}.log").read_text(errors="replace")
                raise Failure(f"{name} ended with {process.returncode}:\n{log[-3000:]}")
            self.say(f"{name}: done")

    def wait(self, names: list[str]) -> None:
        while any(name in self.running for name in names):
            time.sleep(0.2)
            self.check()

    def wait_for_clips(self, count: int) -> None:
        while (self.data / "manifest.jsonl").read_bytes().count(b"\n") < count:
            time.sleep(0.2)
            self.check()

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(STOPPING_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def say(self, text: str) -> None:
        sys.stderr.write(f"{self.elapsed():6.1f} s  {text}\n")


# What differs from the recipes, which are for a few CPU cores
GPU: dict[str, object] = {
    "loop.steps": 0,
    "loop.num_threads": 2,
    "loop.log_every": 100,
    "loop.validate_every": 1000,
    "loop.sample_every": 0,
    "loop.export_every": 0,
    "loop.checkpoint_every": 0,
}
GPU_STAGES: dict[str, dict[str, object]] = {
    "autoencoder": {
        "data.crop_size": 0,  # whole pictures: reading them, not computing, takes the time
        "data.batch_size": 48,
        "data.workers": 8,
        "optimizer.lr": 1.5e-3,
        "optimizer.muon_max_side": 0,
        "optimizer.flat": 0.3,
        "optimizer.final_factor": 0.02,
        "objective.eyes_weight": 8.0,
    },
    "decoder": {
        "data.crop_size": 0,
        "data.batch_size": 48,
        "data.workers": 6,
        "optimizer.lr": 1e-3,
        "optimizer.muon_max_side": 0,
        "objective.eyes_weight": 10.0,
        "objective.latent_noise": 0.06,
    },
    "audio": {"data.batch_size": 96, "data.workers": 3, "optimizer.lr": 1.5e-3},
    "dit": {"data.batch_size": 64, "data.workers": 6, "optimizer.lr": 1.6e-3, "optimizer.flat": 0.3},
}


def kind_of(stage: str) -> str:
    """The stage of `letstalk train`."""
    return "autoencoder" if stage == "decoder" else stage


def speak_share(
    folder: Path, seed: int, seconds: float, processes: int, counts: dict[str, int], first: int
) -> None:
    """The part of the sentences that process `first` of `processes` speaks."""
    import torch

    from letstalk_research.training.speech import UtteranceCache

    torch.set_num_threads(1)
    cache = UtteranceCache(folder, seed)
    for split, count in counts.items():
        cache.load(split, count, seconds, first=first, stride=processes)


def value(found: object) -> str:
    """A TOML value."""
    return json.dumps(found if isinstance(found, (int, float)) else str(found))


if __name__ == "__main__":
    sys.exit(main())
