"""`letstalk dub VIDEO AUDIO -o out.mp4`: a filmed person says another recording."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_machine, add_model, add_results


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "dub",
        help="put other words into the mouth of a filmed person",
        description="Make VIDEO again with a mouth that speaks AUDIO: head, eyes and all else stay as filmed, and"
        " so do frames without a face or with one turned away. The result has the size of the video and plays"
        " AUDIO. Ctrl-C ends it with what is done; a killed run continues when the same command is given again."
        " Ask the person first.",
    )
    add = parser.add_argument
    add("video", help="film of a person, seen from the front")
    add("audio", help="speech: any sound or video file")
    add("-o", "--output", required=True, help="video to write, .mp4")
    add(
        "--length",
        choices=("cut", "loop", "error"),
        default="cut",
        help="where sound and video are not equally long: cut the longer one, loop the video back and forth under"
        " all of the sound, or stop with an error (default cut)",
    )
    add_model(parser)
    add("--no-puppet", action="store_true", help="mouths as the model makes them, not drawn from the film's face")
    add("--no-carry", action="store_true", help="plain mouths, without the detail of the filmed face")
    add_machine(parser)
    add("--resume", action="store_true", help="after Ctrl-C, too, keep OUTPUT.work, from which a run continues")
    add("--restart", action="store_true", help="delete what an unfinished run left in OUTPUT.work")
    add_results(parser)
    parser.set_defaults(run=run, compile=False)


def run(args: argparse.Namespace) -> int:
    from .run_dub import run_dub

    return run_dub(args)
