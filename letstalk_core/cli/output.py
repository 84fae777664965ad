"""Checks of output paths before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutputError

__all__ = ["check_output"]


def check_output(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """A path that can be written.

    Raises: OutputError if its folder is missing or closed, or the file is in the way.
    """
    target = Path(path)
    folder = target.parent
    try:
        target.is_dir(), folder.is_dir()  # names that are too long
    except OSError as error:
        raise OutputError(
            f"{str(target)[:80]}: cannot be written ({error.strerror}); choose another name"
        ) from None
    if not folder.is_dir():
        raise OutputError(f"{target}: folder {folder} does not exist; create it or choose another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: folder {folder} is not writable; choose another")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; give the name of a file")
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: exists already; add --overwrite or choose another name")
    return target
