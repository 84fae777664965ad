"""`letstalk synthesize`: write a folder of talking clips, drawn or made from still portraits."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letstalk_core.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from ..data.manifest import ClipRecord
    from ..data.synthetic.texts import Speaker

MOST_TURN = 2.5


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "synthesize",
        help="make talking faces with espeak-ng speech as training data",
        description="Write clips of drawn talking faces, or of a folder of still portraits set in motion, with"
        " their sound and truth. Existing clips are kept, so a stopped job goes on; --first and --stride divide"
        " the work between processes.",
    )
    add = parser.add_argument
    add("folder", help="data folder; made if missing")
    add("--clips", type=int, default=1500, help="clips in the folder in the end (default 1500)")
    add("--frames", type=int, default=24, help="frames of each clip at 25 fps (default 24)")
    add("--seed", type=int, default=0)
    add("--split", choices=("train", "val"), default="train")
    add("--first", type=int, default=0, help="index of this process, from 0")
    add("--stride", type=int, default=1, help="number of processes sharing the work")
    add("--device", default="cpu", help="where to draw (default cpu)")
    add("--threads", type=int, default=1, help="CPU threads (default 1)")
    add(
        "--portraits",
        metavar="DIR",
        help="still portraits to animate instead of drawing faces; see data/photo/stills.py for the folder",
    )
    add("--landmarks", metavar="FILE", help=".npz with the landmarks (default DIR/landmarks.npz)")
    add(
        "--drawn-every",
        type=int,
        default=5,
        help="of portrait clips, one in so many is drawn; 0: none (default 5)",
    )
    add(
        "--turn",
        type=float,
        default=1.0,
        help="factor on head turns of portraits; 1 is up to 8 degrees (default 1)",
    )
    add(
        "--recordings",
        action="append",
        default=[],
        metavar="DIR",
        help="people speak some of the clips: a folder with sounds and metadata.csv of lines 'name|text', as"
        " LJSpeech has it; needs pocketsphinx; may be repeated",
    )
    add("--engines", default="", metavar="NAMES", help="more voices for some of the clips: flite,festival")
    add(
        "--speech-share",
        type=float,
        default=0.5,
        help="part of the speech that recordings and engines say; the rest is espeak-ng's (default 0.5)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from letstalk_core.cli.hardware import at_least, check_share, choose_device, use_threads

    check_share(args.first, args.stride)
    at_least(1, clips=args.clips, frames=args.frames)
    at_least(0, seed=args.seed, drawn_every=args.drawn_every)
    if not 0 <= args.turn <= MOST_TURN:
        raise ConfigError(f"--turn={args.turn} must be from 0 to {MOST_TURN:g}; 1 turns heads by up to 8 degrees")
    if args.landmarks and not args.portraits:
        raise ConfigError("--landmarks needs --portraits, the folder of pictures they belong to")
    use_threads(args.threads)
    device = choose_device(args.device)
    speak = _speaker(args)
    start, count = time.monotonic(), 0
    for record in _clips(args, speak, device):
        count += 1
        if count % 25 == 0:
            rate = count * args.frames / (time.monotonic() - start)
            sys.stderr.write(f"{record.id}: {count} clips written, {rate:.1f} frames/s\n")
    sys.stderr.write(f"{count} clips written to {args.folder}\n")
    return 0


def _clips(args: argparse.Namespace, speak: Speaker | None, device: torch.device) -> Iterator[ClipRecord]:
    from ..data.photo.clips import synthesize_photos
    from ..data.synthetic.dataset import synthesize

    names = ("clips", "frames", "seed", "split", "first", "stride")
    shared = {name: getattr(args, name) for name in names} | {"device": device, "speak": speak}
    if not args.portraits:
        return synthesize(args.folder, **shared)
    return synthesize_photos(
        args.folder,
        args.portraits,
        landmarks=args.landmarks,
        turn=args.turn,
        drawn_every=args.drawn_every,
        **shared,
    )


def _speaker(args: argparse.Namespace) -> Speaker | None:
    """Who speaks the clips, with a library of recordings and engines in the data folder if asked for."""
    from ..data.synthetic.speech_library import mixture, prepared

    engines = tuple(name.strip() for name in args.engines.split(",") if name.strip())
    if not args.recordings and not engines:
        return None
    library = prepared(Path(args.folder) / "speech", recordings=args.recordings, engines=engines)
    return mixture(library, args.speech_share)
