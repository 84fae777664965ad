"""`letstalk batch JOBS.csv -o DIR`: many portraits and recordings, in this process or on a Ray cluster."""

from __future__ import annotations

import argparse
from typing import Any

from .jobs import TABLE
from .options import add_settings


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "batch",
        help="make many talking videos, on as many machines as there are",
        description="Make a video of every line of JOBS, a .csv with a line of column names or a .jsonl with an"
        " object a line. Columns: portrait, audio, vocals, motion, reference, output, png, contact_sheet,"
        " drift_plot, keep_work, and the options below, which hold where a line says nothing else. Files that are"
        " read are relative to JOBS, results to DIR. A job that fails stops no other;"
        f" DIR/{TABLE} says what became of each. Killed at any moment, the same command goes on: what is finished"
        " is not made again.",
    )
    add = parser.add_argument
    add("jobs", metavar="JOBS", help="table of jobs, .csv or .jsonl")
    add("-o", "--folder", metavar="DIR", required=True, help="folder of the results; made if needed")
    add("--workers", type=int, help="processes that share the jobs, on Ray (default: all in this one)")
    add(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="run on Ray, one worker a GPU, or a core where there is none: on this machine, or on the cluster at"
        " ADDRESS (auto: the one that this machine is part of)",
    )
    add(
        "--split",
        type=float,
        metavar="SECONDS",
        help="share long recordings, too: cut them at pauses of the speech into parts of at least so many seconds",
    )
    add("--retries", type=int, default=1, help="how often a job is tried again that no input is to blame for")
    add("--restart", action="store_true", help="delete what unfinished runs of other jobs left")
    add("--overwrite", action="store_true", help="replace existing videos that are of other jobs")
    add("--json", action="store_true", help="print what became of the jobs as JSON on stdout")
    add("--quiet", action="store_true", help="print errors only")
    add_settings(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from .run_batch import run_batch

    return run_batch(args)
