"""`letstalk generate PORTRAIT AUDIO -o out.mp4`: the talking video of one picture and a recording."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_results, add_settings


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "generate",
        help="make a talking video from a portrait and a recording",
        description="Make a video of round(seconds * fps) frames in which PORTRAIT speaks AUDIO. Ctrl-C ends it"
        " with what is done. A killed run continues when the same command is given again; until it is done,"
        " OUTPUT.work/so_far.mp4 plays what is finished.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `run_generate.make` reads."""
    add = parser.add_argument
    add("portrait", help="picture of one face")
    add("audio", help="speech: any sound or video file")
    add("-o", "--output", help="video to write, .mp4")
    add("--png", metavar="DIR", help="also (or only) write numbered PNG frames to this folder")
    add("--contact-sheet", metavar="PNG", help="also write a picture of evenly spaced frames")
    add(
        "--vocals",
        metavar="FILE",
        help="the voice of AUDIO alone, separated from music: what the model hears; the video plays AUDIO",
    )
    add(
        "--motion",
        metavar="FILE",
        help="how head, lids and gaze move: a CSV or JSON table of channels over frame or time, or a film of"
        " somebody who moves so; what it does not give is drawn from the seed",
    )
    add(
        "--reference",
        metavar="FILE",
        action="append",
        help="another picture of the same person: mouth open, smiling, turned; may be given several times. Frames"
        " that look like it take their detail from it, in the face only with --no-puppet; for models with carry",
    )
    add("--drift-plot", metavar="PNG", help="also draw how much each clip is like the portrait")
    add_settings(parser)
    add("--resume", action="store_true", help="after Ctrl-C, too, keep OUTPUT.work, from which a run continues")
    add("--restart", action="store_true", help="delete what an unfinished run left in OUTPUT.work")
    add("--keep-work", action="store_true", help="keep OUTPUT.work when the video is done, for --retake")
    add(
        "--retake",
        metavar="FROM-TO",
        help="seconds of a video made with --keep-work to regenerate, such as 12-20.5",
    )
    add(
        "--retake-seed",
        type=int,
        default=1,
        metavar="SEED",
        help="its noise (default 1); --seed stays the video's",
    )
    add_results(parser)
    parser.set_defaults(part=None)  # of a longer video, for jobs of a batch: silent


def run(args: argparse.Namespace) -> int:
    from .run_generate import make

    return 130 if make(args).interrupted else 0
