"""The command line: `letstalk COMMAND …`, also `python -m letstalk_core.cli`.

Exit codes: 0 done, 1 a fault of LetsTalk (with traceback), 2 bad input or settings (one line), 130 stopped by
Ctrl-C. A command is a module of this package with `add_parser(subparsers)`, which sets `run`, a function from the
parsed arguments to an exit code. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..errors import LetsTalkError

__all__ = ["COMMANDS", "build_parser", "main"]

COMMANDS = ("generate", "info", "convert", "synthesize", "prepare", "encode", "train", "evaluate", "experiment")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage and line."""
        sys.stderr.write(f"error: {message} (see {self.prog} --help)\n")
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        args = build_parser().parse_args(argv)
        return int(args.run(args) or 0)
    except LetsTalkError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, of CUDA
            return _fail("the device is out of memory; use a smaller --size, or --dtype bfloat16")
        traceback.print_exc()
        sys.stderr.write("error: this is a fault of LetsTalk; please report it with the lines above\n")
        return 1


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
