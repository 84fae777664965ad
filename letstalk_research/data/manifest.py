"""The index of a training folder: `manifest.jsonl`, one JSON object a line, one line a clip.

The file is only ever appended to, so that clips may be added while a training runs: a reader takes complete lines
only, and a later line of the same id replaces the earlier one (so `letstalk encode` adds latents to a clip).
Ids name files, so each is one component of a path.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from letstalk_core.errors import MediaError, OutputError

MANIFEST = "manifest.jsonl"
SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """One clip of a training folder. Paths are relative to the folder; `frames` counts video frames at `fps`."""

    id: str
    clip: str
    latents: str | None = None
    frames: int
    fps: float = 25.0
    identity: str = ""
    split: str = "train"

    @classmethod
    def from_json(cls, value: Any, where: str) -> ClipRecord:
        """Check and build one record; keys that are not fields are ignored. Raises: MediaError naming the key."""
        if not isinstance(value, dict):
            raise MediaError(f"{where}: is {type(value).__name__}, needs a JSON object")
        for key, kinds in (("id", str), ("clip", str), ("frames", int)):
            if not isinstance(value.get(key), kinds):
                raise MediaError(
                    f"{where}: {key}={value.get(key)!r} must be {kinds.__name__}; prepare the folder again"
                )
        if not re.fullmatch(r"[\w.-]{1,200}", value["id"]) or value["id"] in (".", ".."):
            raise MediaError(
                f"{where}: id={value['id']!r} must consist of at most 200 letters, digits, '_', '-', '.'"
            )
        latents, split, fps = value.get("latents"), value.get("split", "train"), value.get("fps", 25.0)
        if latents is not None and not isinstance(latents, str):
            raise MediaError(f"{where}: latents={latents!r} must be a path or null")
        if split not in SPLITS:
            raise MediaError(f"{where}: split={split!r} must be one of {list(SPLITS)}")
        if not 0 < value["frames"] < 2**31 or not isinstance(fps, (int, float)) or not 0 < fps <= 1000:
            raise MediaError(
                f"{where}: frames={value['frames']!r} must be positive, and fps={fps!r} from 0 to 1000"
            )
        for path in (value["clip"], latents or "x"):
            if not _is_inside(path):
                raise MediaError(f"{where}: path {path!r} leads out of the folder; paths must be relative to it")
        return cls(
            id=value["id"],
            clip=value["clip"],
            latents=latents,
            frames=value["frames"],
            fps=float(fps),
            identity=str(value.get("identity", value["id"])).encode(errors="replace").decode(),
            split=split,
        )


def _is_inside(path: str) -> bool:
    """Whether a path, read as on any system, stays below the folder that it is relative to."""
    kinds = (PurePosixPath(path), PureWindowsPath(path))
    plain = path.isprintable() and len(path) <= 1000  # no null characters, nothing that is no text
    return plain and all(p.parts and not p.anchor and ".." not in p.parts for p in kinds)


class Manifest:
    """The clips of a folder, in the order of their first lines. `refresh` reads what was appended since.

    Raises: MediaError if the folder has no manifest (unless `missing_ok`) or a line is not a valid record.
    """

    def __init__(self, folder: str | Path, *, missing_ok: bool = False) -> None:
        self.folder = Path(folder)
        self.path = self.folder / MANIFEST
        self._records: dict[str, ClipRecord] = {}
        self._encoded: dict[str, None] = {}  # ids in the order of their first lines with latents
        self._offset = 0
        self._lines = 0
        if not missing_ok and not self.path.is_file():
            raise MediaError(
                f"{self.path}: no such file; make the folder with `letstalk prepare` or `letstalk synthesize`"
            )
        self.refresh()

    def refresh(self, limit: int | None = None) -> int:
        """Read complete new lines, at most until `limit` lines are known in all; returns the lines known."""
        if not self.path.is_file():
            return self._lines
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n") or (limit is not None and self._lines >= limit):
                    break
                self._offset += len(line)
                self._lines += 1
                if line.strip():
                    self._add(line)
        return self._lines

    def _add(self, line: bytes) -> None:
        where = f"{self.path}, line {self._lines}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MediaError(f"{where}: not JSON ({error}); remove the line or prepare the folder again") from None
        record = ClipRecord.from_json(value, where)
        self._records[record.id] = record
        if record.latents is not None:
            self._encoded.setdefault(record.id)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ClipRecord]:
        return iter(self._records.values())

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._records

    def select(self, split: str | None = None, *, with_latents: bool = False) -> tuple[ClipRecord, ...]:
        """The clips of a split (all when None), on request only those that have latents.

        Those come in the order in which they got them: a reader that looks once then sees the same order as one
        that looked again and again, which lets a resumed training repeat the live one.
        """
        records = (self._records[i] for i in self._encoded) if with_latents else iter(self)
        wanted = (r for r in records if split is None or r.split == split)
        return tuple(r for r in wanted if not with_latents or r.latents is not None)


def append_records(folder: str | Path, records: Iterable[ClipRecord]) -> None:
    """Append records to the folder's manifest in one write, which other readers see as complete lines.

    Raises: OutputError if the file cannot be written.
    """
    path = Path(folder) / MANIFEST
    text = "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); check the folder and free disk space"
        ) from None
