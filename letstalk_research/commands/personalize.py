"""`letstalk personalize VIDEO... -o DIR`: a few minutes of one person's video become that person's model."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from letstalk_core.errors import ConfigError

SHOW_EVERY_S = 1.0


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "personalize",
        help="make a person's own model from a few minutes of video",
        description="Train the bundled (or another) model further on videos of one person, of whom you have the"
        " consent: autoencoder, denoiser and carry, measured on the last tenth, which is held out. DIR then is a"
        " model folder for `letstalk generate --model DIR` and ComfyUI, with portrait.png and a report. Ctrl-C, a"
        " kill or a crash lose at most a minute: the same command goes on.",
    )
    add = parser.add_argument
    add("videos", nargs="+", help="videos of the person speaking, or folders of them; three minutes or more")
    add("-o", "--output", required=True, metavar="DIR", help="model folder to make")
    add(
        "--minutes",
        type=float,
        default=30.0,
        help="of training, in all (default 30; a CPU wants more, a GPU less); preparing and measuring are extra",
    )
    add("--model", metavar="DIR", help="model to start from (default: the bundled one)")
    add(
        "--lora",
        action="store_true",
        help="train low-rank changes of the denoiser, and the decoder of the autoencoder alone: also writes"
        " lora.safetensors, a few MB to load on top of the model it starts from",
    )
    add("--rank", type=int, default=16, help="with --lora: rank of the changes (default 16)")
    add("--name", help="of the person, for the metadata (default: the name of DIR)")
    add("--clips", type=int, default=6, help="held-out clips to measure, before and after; 0: none (default 6)")
    add("--device", default="auto", help="auto or cpu (default auto: a GPU if there is one)")
    add("--threads", type=int, help="CPU threads")
    add("--keep-work", action="store_true", help="keep DIR/work, from which more --minutes go on")
    add("--restart", action="store_true", help="delete what an unfinished run left in DIR/work")
    add("--overwrite", action="store_true", help="replace a finished model in DIR")
    add("--json", action="store_true", help="print progress and the results as lines of JSON on stdout")
    add("--quiet", action="store_true", help="print errors only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from letstalk_core.cli.hardware import at_least, use_threads
    from letstalk_core.networks.load import DEMO_FOLDER

    from ..training.presenter import PresenterJob
    from ..training.runtime import Stopped
    from . import show_log
    from .prepare import find_videos

    at_least(0, clips=args.clips)
    at_least(1, rank=args.rank)
    if args.device not in ("auto", "cpu"):
        raise ConfigError(f"--device {args.device!r} must be auto or cpu")
    folder = Path(args.output)
    show = _Show(args)
    if not args.quiet and not args.json:
        show_log()
    use_threads(args.threads)
    job = PresenterJob(
        videos=[Path(v) for v in find_videos(args.videos)],
        folder=folder,
        base=DEMO_FOLDER if args.model is None else Path(args.model),
        minutes=args.minutes,
        lora_rank=args.rank if args.lora else 0,
        name=args.name or folder.resolve().name,
        device=args.device,
        watch=show,
    )
    with job.opened(restart=args.restart, overwrite=args.overwrite):
        try:
            job.run()
        except Stopped as stopped:
            sys.stderr.write("stopped; the same command goes on\n")
            return 128 + stopped.signal
        report = _measure(args, job, show) if args.clips else None
    job.finish(keep_work=args.keep_work)
    if args.json:
        values = {"done": str(folder), "files": job.written, "report": report.to_dict() if report else None}
        sys.stdout.write(json.dumps(values) + "\n")
    elif not args.quiet:
        sys.stdout.write(
            (report.to_markdown() if report else "") + f"wrote {', '.join(job.written)} in {folder}\n"
        )
    return 0


def _measure(args: argparse.Namespace, job: Any, show: Any) -> Any:
    """The report on held-out clips, of the model before and after."""
    from letstalk_core.cli.hardware import choose_device, choose_dtype
    from letstalk_core.generate.talking_portrait import GenerateSettings
    from letstalk_core.networks.load import load_bundle

    from ..evaluation.bundle_subject import BundleSubject
    from ..evaluation.face_curves import FinderReader
    from ..evaluation.presenter import held_out_clips, run_presenter

    device = choose_device(args.device)
    subjects = {}
    for name, path in (("before", job.base), ("after", job.folder)):
        bundle = load_bundle(path, device=device, dtype=choose_dtype("auto", device))
        movement = bundle.audio_projection.config.movement
        subjects[name] = (BundleSubject(bundle, GenerateSettings()), movement)
    report = run_presenter(
        subjects,
        job.portrait(),
        held_out_clips(job.data, args.clips, seconds=6.4),
        FinderReader(),
        out_dir=job.folder / "report",
        notes={"minutes": args.minutes, "models_sha256": {k: s[0].bundle.hashes() for k, s in subjects.items()}},
        progress=lambda _, done, clips, *__: show("measuring", done / clips, f"clip {done} of {clips}"),
    )
    return report


class _Show:
    """Progress: a line for each tenth of a stage, or JSON lines."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._json, self._quiet = args.json, args.quiet
        self._told, self._stage = -1.0, ""

    def __call__(self, stage: str, share: float, text: str) -> None:
        now = time.monotonic()
        if stage == self._stage and share < 1 and now - self._told < SHOW_EVERY_S:
            return
        begins, self._stage, self._told = stage != self._stage, stage, now
        if self._json:
            sys.stdout.write(json.dumps({"stage": stage, "share": round(share, 4), "text": text}) + "\n")
            sys.stdout.flush()
        elif not self._quiet and (begins or share >= 1):
            sys.stderr.write(f"{stage}: {text}\n")
