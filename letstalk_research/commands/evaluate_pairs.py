"""`letstalk evaluate --videos DIR --truth DIR -o DIR`: any videos against the truth, in the metrics of papers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from letstalk_core.errors import ConfigError, OutputError

from ..evaluation.paper.weights import WEIGHTS

__all__ = ["add_truth", "evaluate_pairs"]


def add_truth(add: Callable[..., Any]) -> None:
    """The options. `add` is a parser's `add_argument`."""
    add("--truth", metavar="DIR", help="compare --videos with those of the same names in this folder")
    for weights in WEIGHTS.values():
        add(
            f"--{weights.option}",
            metavar="FILE",
            help=f"with --truth: {weights.file}, of {weights.project}; without it its row is left out",
        )


def evaluate_pairs(args: argparse.Namespace) -> int:
    """Raises: ConfigError, OutputError, and what `run_table` raises."""
    from letstalk_core.cli.hardware import at_least, choose_device, use_threads

    from ..evaluation.face_curves import FinderReader
    from ..evaluation.paper.table import run_table

    folder = Path(args.output)
    if args.videos is None:
        raise ConfigError("--truth needs --videos, the folder of videos that are compared with it")
    if args.suite != "clips" or args.model is not None:
        raise ConfigError("with --truth no model runs; leave out --suite and --model")
    if (folder / "report.json").exists() and not args.overwrite:
        raise OutputError(f"{folder / 'report.json'}: exists already; add --overwrite or choose another folder")
    at_least(1, clips=args.clips)
    use_threads(args.threads)

    def say(line: str) -> None:
        if not args.quiet:
            sys.stderr.write(line + "\n")

    table = run_table(
        Path(args.videos),
        Path(args.truth),
        {name: Path(getattr(args, name)) for name in WEIGHTS if getattr(args, name) is not None},
        FinderReader(),
        seconds=10.0 if args.seconds is None else args.seconds,
        clips=args.clips,
        device=str(choose_device(args.device)),
        say=say,
    )
    table.save(folder)
    if args.json:
        sys.stdout.write(json.dumps(table.to_dict(), indent=2) + "\n")
    elif not args.quiet:
        sys.stdout.write(table.to_markdown())
    return 0
