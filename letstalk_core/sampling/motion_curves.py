"""Movement that somebody gives: curves of channels over the frames, from files, and emotions as names for some.

A file is CSV with a header, or JSON, an object of lists or a list of objects: columns `frame` or `time` (seconds)
and any channels of `networks.motion_channels`, in their units. Between rows curves are straight lines; after the
last row they hold its values.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, MediaError
from ..networks.motion_channels import ABSOLUTE, MOVEMENTS, units

# Added to whatever else moves, at strength 1: what a face shows beside the lips.
EMOTIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"smile": 0.3, "brow": 0.05},
    "sad": {"smile": -0.15, "brow": 0.08, "pitch": 0.08},
    "angry": {"smile": -0.12, "brow": -0.15, "pitch": 0.05},
    "surprised": {"brow": 0.18, "pitch": -0.04},
    "stern": {"smile": -0.1, "brow": -0.08},
}
LARGEST = 3.0  # of the usual size of a channel: beyond it networks have seen nothing
LARGEST_FILE = 64 * 2**20  # bytes


def check_emotion(emotion: str, strength: float = 1.0) -> dict[str, float]:
    """Channels and what is added to them. Raises: ConfigError for an unknown name, or a strength not in 0 to 2."""
    if emotion not in EMOTIONS:
        raise ConfigError(f"emotion={emotion!r}: is unknown; choose one of {', '.join(EMOTIONS)}")
    if not (math.isfinite(strength) and 0 <= strength <= 2):
        raise ConfigError(f"emotion strength={strength} must be a number from 0 to 2; 1 is usual")
    return {name: strength * value for name, value in EMOTIONS[emotion].items()}


@dataclass(frozen=True, eq=False)
class MotionCurves:
    """One value a frame for some channels; others stay as they are drawn from the seed.

    columns: channel -> (f,) float32. mirrored: after the last frame they run back and forth, else they hold it.
    added: constants on top of any channel, given or drawn. Raises: ConfigError, one line with channel and value.
    """

    columns: Mapping[str, Tensor] = field(default_factory=dict)
    mirrored: bool = False
    added: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [*self.columns, *self.added]
        sizes = dict(zip(names, units(names), strict=True))
        for name, column in self.columns.items():
            if column.ndim != 1 or not len(column):
                raise ConfigError(f"motion: {name} has shape {list(column.shape)}; needs one number a frame")
            low, limit = _range(name, sizes[name])
            wrong = ~((column >= low) & (column <= limit))
            if bool(wrong.any()):
                frame = int(wrong.nonzero()[0, 0])
                raise ConfigError(
                    f"motion: {name} is {float(column[frame]):g} at frame {frame}; must be {low:g} to {limit:g}"
                )

    def __bool__(self) -> bool:
        return bool(self.columns or self.added)

    def rows(self, name: str, first: int, count: int) -> NDArray[np.float64] | None:
        """A channel's values at the frames from `first` on, or None where it is not given."""
        column = self.columns.get(name)
        if column is None:
            return None
        at = np.arange(first, first + count)
        length = len(column)
        if self.mirrored and length > 1:
            at = at % (2 * length - 2)
            at = np.minimum(at, 2 * length - 2 - at)
        return column.double().numpy()[np.minimum(at, length - 1)]

    @property
    def fingerprint(self) -> str:
        """Changes with every value."""
        digest = hashlib.sha256(repr((self.mirrored, sorted(self.added.items()))).encode())
        for name in sorted(self.columns):
            digest.update(name.encode() + self.columns[name].float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def of_frames(cls, rows: Tensor, names: Sequence[str] = MOVEMENTS, *, mirrored: bool = False) -> MotionCurves:
        """Rows (f, channels) as `media.filmed_motion` reads them, held within what networks know."""
        given = zip(names, units(names), rows.float().unbind(1), strict=True)
        return cls({name: column.clamp(*_range(name, size)) for name, size, column in given}, mirrored)

    @classmethod
    def load(cls, path: Path, fps: float) -> MotionCurves:
        """Read a CSV or JSON file for a video of `fps` frames a second. Raises: MediaError, ConfigError."""
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise MediaError(f"{path}: is larger than {LARGEST_FILE >> 20} MB; give fewer rows")
            text = path.read_text(encoding="utf-8-sig")
            table = _json_table(text) if path.suffix.lower() == ".json" else _csv_table(text)
        except OSError as error:
            raise MediaError(f"{path}: cannot be read ({error.strerror}); check the path") from None
        except (ValueError, TypeError, RecursionError, csv.Error) as error:
            raise MediaError(
                f"{path}: is no table of motion ({error}); needs columns frame or time, and channels"
            ) from None
        return cls._of_table(path, table, fps)

    @classmethod
    def _of_table(cls, path: Path, table: dict[str, NDArray[np.float64]], fps: float) -> MotionCurves:
        times = [name for name in ("frame", "time") if name in table]
        channels = [name for name in table if name not in times]
        unknown = [name for name in channels if name not in MOVEMENTS]
        if unknown or not channels:
            found = f"column {unknown[0]!r} is no channel" if unknown else "holds no channel"
            raise ConfigError(f"{path}: {found}; known are {', '.join(MOVEMENTS)}")
        if len(times) > 1:
            raise ConfigError(f"{path}: has both columns frame and time; leave out one of them")
        length = len(table[channels[0]])
        at = table[times[0]] * (fps if times == ["time"] else 1.0) if times else np.arange(length, dtype=float)
        if not length or not np.isfinite(at).all() or (np.diff(at) <= 0).any() or at[0] < 0:
            raise ConfigError(
                f"{path}: column {(times or ['frame'])[0]} must rise from row to row, from 0 or more"
            )
        frames = np.arange(math.floor(at[-1] + 1e-6) + 1, dtype=float)
        columns = {}
        for name in channels:
            known = np.isfinite(table[name])  # an empty cell says nothing
            if known.any():
                curve = np.interp(frames, at[known], table[name][known]).astype(np.float32)
                columns[name] = torch.from_numpy(curve)
        return cls(columns)


def _range(name: str, size: float) -> tuple[float, float]:
    """What a channel of this usual size may be."""
    return (0.0, 1.0) if name in ABSOLUTE else (-LARGEST * size, LARGEST * size)


def _csv_table(text: str) -> dict[str, NDArray[np.float64]]:
    rows = list(csv.reader(line for line in text.splitlines() if line.strip()))
    if len(rows) < 2:
        raise ValueError("no rows")
    names = [name.strip() for name in rows[0]]
    if any(len(row) != len(names) for row in rows):
        raise ValueError("rows of different lengths")
    return {name: np.array([_number(row[i]) for row in rows[1:]]) for i, name in enumerate(names)}


def _json_table(text: str) -> dict[str, NDArray[np.float64]]:
    found = json.loads(text)
    if isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
        names = list(dict.fromkeys(name for row in found for name in row))
        found = {name: [row.get(name) for row in found] for name in names}
    if not isinstance(found, dict) or not all(isinstance(value, list) for value in found.values()):
        raise ValueError("neither an object of lists nor a list of objects")
    if len({len(value) for value in found.values()}) != 1:
        raise ValueError("lists of different lengths")
    return {str(name): np.array([_number(value) for value in values]) for name, values in found.items()}


def _number(value: Any) -> float:
    """A cell; nothing is NaN."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    return float(value)
