"""Where results go, checked before any work is done, and words on a terminal that may not be there."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..errors import OutputError
from ..files import new_temporary


def check_output(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """A path at which a file can be made now.

    Raises: OutputError if its folder is missing or closed, the name does not fit, or the file is in the way.
    """
    target = check_file_name(path)
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"{target}: folder {folder} does not exist; create it or choose another")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; give the name of a file")
    if os.path.lexists(target) and not overwrite:
        raise OutputError(f"{target}: exists already; add --overwrite or choose another name")
    _try(target)
    return target


def check_folder(path: str | os.PathLike[str]) -> Path:
    """A folder in which files can be made now, or one that can be made itself. Raises: OutputError."""
    folder = check_file_name(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; give a folder")
    if not folder.absolute().parent.is_dir():
        raise OutputError(f"{folder}: folder {folder.parent} does not exist; create it or choose another")
    _try(folder / "frame_000000.png" if folder.is_dir() else folder)
    return folder


def check_file_name(path: str | os.PathLike[str]) -> Path:
    """Raises: OutputError for what names no file, and for names that are too long for the file system."""
    target = Path(path)
    if not target.name:  # "", ".", "/"
        raise OutputError(f"{str(path)!r} is no file name; give one such as out.mp4")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            target.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{str(target)[:80]}: cannot be written ({reason}); choose another name") from None
    return target


def _try(target: Path) -> None:
    """Permissions do not tell all: make a file, as the run will. Raises: OutputError."""
    try:
        new_temporary(target).unlink()
    except OSError as error:
        raise OutputError(
            f"{target}: folder {target.parent} is not writable ({error.strerror}); choose another"
        ) from None


def check_temporary_folder() -> None:
    """Libraries need one, and without it fail in ways that blame something else. Raises: OutputError."""
    try:
        tempfile.gettempdir()
    except OSError:
        raise OutputError(
            "there is no folder for temporary files: none of the usual ones can be written; set TMPDIR to one"
            " that can"
        ) from None


def check_apart(outputs: Mapping[str, Path], inputs: Mapping[str, Path]) -> None:
    """No output is an input or another output, by whatever name. Raises: OutputError."""
    taken = {identity: name for name, path in inputs.items() for identity in _identities(path)}
    for name, path in outputs.items():
        same = next((taken[identity] for identity in _identities(path) if identity in taken), None)
        if same is not None:
            raise OutputError(f"{path}: is {same}, and cannot be {name} too; choose another name")
        taken.update(dict.fromkeys(_identities(path), name))


def _identities(path: Path) -> list[object]:
    """The place that a path leads to, and the file that is there."""
    place = os.path.normcase(path.resolve())
    found: list[object] = [place.casefold() if sys.platform == "darwin" else place]
    with contextlib.suppress(OSError):
        status = path.stat()
        found.append((status.st_dev, status.st_ino))
    return found


def printable(text: str) -> str:
    """Text from anywhere as a terminal may get it: control characters, escapes and newlines are spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str, quiet: bool = False) -> None:
    """A line on stderr, if somebody listens: a video must not be lost because nobody does. quiet: no line."""
    if quiet:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()


def write_out(text: str) -> None:
    """Text on stdout, if somebody reads it, as the last thing of a command."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError):  # the reader has gone; Python writes what is left once more at its end
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_standard_streams() -> None:
    """Put the null device where the program was started with closed streams.

    Else the next file that is opened, such as the video, gets their numbers, and messages are written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+", encoding="utf-8"))
