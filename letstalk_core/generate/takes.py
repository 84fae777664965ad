"""Files of another take of a part of a video, beside the work folder's own until all of it is done.

Killed while the take is made, the video is as it was; killed while the files move over, `finish_moves` completes
that the next time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files import atomic_path, sync_to_disk

TAKE_FILE, COMMIT_FILE = "take.json", "commit.json"


def take_folder(work: Path) -> Path:
    """Where the files of a take lie."""
    return work / "retake"


def open_take(work: Path, take: dict[str, Any]) -> None:
    """Make the folder of a take, or go on with it if it is the same. Raises: OutputError."""
    folder = take_folder(work)
    if _read(folder / TAKE_FILE) == take:
        return
    clear_take(work)
    with atomic_path(folder / TAKE_FILE, durable=True) as temporary:
        temporary.write_text(json.dumps(take), encoding="utf-8")


def release_take(work: Path) -> None:
    """All files of the take are there: from now on it is the video. Raises: OutputError."""
    folder = take_folder(work)
    with atomic_path(folder / COMMIT_FILE, durable=True) as temporary:
        temporary.write_text(json.dumps(_read(folder / TAKE_FILE)), encoding="utf-8")


def finish_moves(work: Path) -> dict[str, Any] | None:
    """Move the files of a released take to their places; returns the take, or None if none is released.

    The folder stays until `clear_take`. Raises: OutputError.
    """
    folder = take_folder(work)
    take = _read(folder / COMMIT_FILE)
    if take is None:
        return None
    try:
        for path in sorted(folder.glob("[cdv]*-*")):  # clip-…, drift-… and video-…
            path.replace(work / path.name)
    except OSError as error:
        raise OutputError(f"{work}: cannot be written ({error.strerror}); check the folder") from error
    sync_to_disk(work)
    return take


def clear_take(work: Path) -> None:
    """Drop the folder of a take. Raises: OutputError."""
    folder = take_folder(work)
    try:
        (folder / COMMIT_FILE).unlink(missing_ok=True)  # first: what is left then is a take that never was
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be deleted ({error.strerror}); delete it by hand") from error


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
