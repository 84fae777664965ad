"""`letstalk synthesize`: write a folder of drawn talking clips."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.synthetic.texts import Speaker

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "synthesize",
        help="draw talking faces with espeak-ng speech as training data",
        description="Write clips of drawn talking faces with their sound and truth. Existing clips are kept, so a"
        " stopped job goes on; --first and --stride divide the work between processes.",
    )
    parser.add_argument("folder", help="data folder; made if missing")
    parser.add_argument("--clips", type=int, default=1500, help="clips in the folder in the end (default 1500)")
    parser.add_argument("--frames", type=int, default=24, help="frames of each clip at 25 fps (default 24)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "val"), default="train")
    parser.add_argument("--first", type=int, default=0, help="index of this process, from 0")
    parser.add_argument("--stride", type=int, default=1, help="number of processes sharing the work")
    parser.add_argument("--device", default="cpu", help="where to draw (default cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--recordings",
        action="append",
        default=[],
        metavar="DIR",
        help="people speak some of the clips: a folder with sounds and metadata.csv of lines 'name|text', as"
        " LJSpeech has it; needs pocketsphinx; may be repeated",
    )
    parser.add_argument(
        "--engines", default="", metavar="NAMES", help="more voices for some of the clips: flite,festival"
    )
    parser.add_argument(
        "--speech-share",
        type=float,
        default=0.5,
        help="part of the speech that recordings and engines say; the rest is espeak-ng's (default 0.5)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from letstalk_core.cli.hardware import at_least, check_share, choose_device, use_threads

    from ..data.synthetic.dataset import synthesize

    check_share(args.first, args.stride)
    at_least(1, clips=args.clips, frames=args.frames)
    at_least(0, seed=args.seed)
    use_threads(args.threads)
    device = choose_device(args.device)
    speak = _speaker(args)
    start, count = time.monotonic(), 0
    for record in synthesize(
        args.folder,
        clips=args.clips,
        frames=args.frames,
        seed=args.seed,
        split=args.split,
        first=args.first,
        stride=args.stride,
        device=device,
        speak=speak,
    ):
        count += 1
        if count % 25 == 0:
            rate = count * args.frames / (time.monotonic() - start)
            sys.stderr.write(f"{record.id}: {count} clips written, {rate:.1f} frames/s\n")
    sys.stderr.write(f"{count} clips written to {args.folder}\n")
    return 0


def _speaker(args: argparse.Namespace) -> Speaker | None:
    """Who speaks the clips, with a library of recordings and engines in the data folder if asked for."""
    from ..data.synthetic.speech_library import mixture, prepared

    engines = tuple(name.strip() for name in args.engines.split(",") if name.strip())
    if not args.recordings and not engines:
        return None
    library = prepared(Path(args.folder) / "speech", recordings=args.recordings, engines=engines)
    return mixture(library, args.speech_share)
