"""The command line: `letstalk COMMAND …`, also `python -m letstalk_core.cli`.

Exit codes: 0 done, 1 a fault of LetsTalk (with traceback), 2 bad input or settings (one line), 130 stopped by
Ctrl-C. A command is a module of this package, or of `letstalk_research.commands`, with `add_parser(subparsers)`,
which sets `run`, a function from the parsed arguments to an exit code. Nothing heavy is imported before it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from .. import __version__
from ..errors import DependencyError
from .failures import explain
from .output import open_standard_streams, say

COMMANDS = ("generate", "batch", "dub", "info", "convert")
RESEARCH_COMMANDS = ("synthesize", "prepare", "personalize", "encode", "train", "evaluate", "experiment")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage and line."""
        say(f"error: {message} (see {self.prog} --help)")
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    parser = _Parser(
        prog="letstalk", description="Talking portraits of any length from one picture and a speech recording."
    )
    parser.add_argument("--version", action="version", version=f"letstalk {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    package = __name__.rpartition(".")[0] if __name__ != "__main__" else "letstalk_core.cli"
    for command in COMMANDS:
        importlib.import_module(f"{package}.{command}").add_parser(subparsers)
    for command in RESEARCH_COMMANDS:
        try:
            module = importlib.import_module(f"letstalk_research.commands.{command}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "letstalk_research":
                raise
            _add_missing(subparsers, command)
        else:
            module.add_parser(subparsers)
    return parser


def _add_missing(subparsers: Any, command: str) -> None:
    """A command that takes any arguments and says which package it lacks."""

    def run(args: argparse.Namespace) -> int:
        raise DependencyError(
            f"`letstalk {command}` needs the package letstalk_research, which is not in this copy;"
            " pip install 'letstalk-portrait[train]'"
        )

    parser = subparsers.add_parser(command, add_help=False, prefix_chars="\n")  # so that no argument is an option
    parser.add_argument("arguments", nargs="*")
    parser.set_defaults(run=run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    open_standard_streams()
    with _CtrlC() as ctrl_c:
        try:
            args = build_parser().parse_args(argv)
            return int(args.run(args) or 0)
        except KeyboardInterrupt:
            return _stopped()
        except Exception as error:
            return _stopped() if ctrl_c.pressed else _failed(error)


class _CtrlC:
    """Notes a Ctrl-C that interrupts, for libraries in other languages make errors of their own of it."""

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> _CtrlC:
        self._ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._ours:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise KeyboardInterrupt


def _stopped() -> int:
    say("stopped")
    return 130


def _failed(error: Exception) -> int:
    """Say what went wrong; the exit code."""
    if isinstance(error, BrokenPipeError):  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    reason = explain(error)
    if reason is not None:
        say(f"error: {reason}")
        return 2
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error)
    say("error: this is a fault of LetsTalk; please report it with the lines above")
    return 1


if __name__ == "__main__":
    sys.exit(main())
