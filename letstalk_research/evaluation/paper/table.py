"""The table of a paper for a folder of videos: which rows there are, and what fills them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from letstalk_core.files import file_sha256

from ..face_curves import PointReader
from ..intervals import NOTHING, Interval
from ..report import write_report
from .features import i3d, inception, videomae
from .measures import CLIP_FRAMES, Frechet, Identity, Landmarks, Measure, Pixels, Sync
from .networks import IResNet
from .pairs import Pair, find_pairs
from .syncnet import SyncNet
from .weights import WEIGHTS, load_weights, read_weights


@dataclass(frozen=True)
class Row:
    """Metrics that are measured together. `weights`: the option that names their file; `make(file, device)`."""

    names: tuple[str, ...]
    better: str
    make: Callable[[Path, str], Measure]
    weights: str | None = None


def _identity(path: Path, device: str) -> Measure:
    tensors = read_weights(path)
    return Identity(load_weights(IResNet.like(tensors), tensors, path).to(device))  # type: ignore[arg-type]


def _sync(path: Path, device: str) -> Measure:
    return Sync(load_weights(SyncNet(), read_weights(path), path).to(device))  # type: ignore[arg-type]


ROWS: tuple[Row, ...] = (
    Row(("FID",), "lower", lambda p, d: Frechet("FID", inception(p, d)), "inception"),
    Row(("FVD",), "lower", lambda p, d: Frechet("FVD", i3d(p, d), CLIP_FRAMES), "i3d"),
    Row(
        ("FVD, VideoMAE",), "lower", lambda p, d: Frechet("FVD, VideoMAE", videomae(p, d), CLIP_FRAMES), "videomae"
    ),
    Row(Identity.names, "higher", _identity, "arcface"),
    Row(Sync.names, "C higher, D lower", _sync, "syncnet"),
    Row(Landmarks.names, "lower", lambda p, d: Landmarks()),
    Row(Pixels.names, "higher", lambda p, d: Pixels()),
)


@dataclass
class Table:
    """What was measured, and what was not and why."""

    settings: dict[str, Any]
    values: dict[str, Interval] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes null."""
        rows = [
            {
                "name": name,
                "better": self.better[name],
                **{k: v if math.isfinite(v) else None for k, v in value.to_dict().items()},
                "remark": self.remarks[name],
            }
            for name, value in self.values.items()
        ]
        return {"settings": self.settings, "rows": rows}

    def to_markdown(self) -> str:
        lines = [f"Measured on {', '.join(f'{k} {v}' for k, v in self.settings.items())}.", ""]
        lines += ["| metric | better | value | of | remark |", "|---|---|---|---|---|"]
        for name, value in self.values.items():
            shown = str(value) if math.isfinite(value.low) or not value.count else f"{value.mean:.4g}"
            lines.append(f"| {name} | {self.better[name]} | {shown} | {value.count} | {self.remarks[name]} |")
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> None:
        """Write report.json and report.md. Raises: OutputError."""
        write_report(folder, self.to_dict(), self.to_markdown())


def run_table(
    videos: Path,
    truth: Path,
    files: Mapping[str, Path],
    reader: PointReader,
    *,
    seconds: float = 10.0,
    clips: int | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> Table:
    """Measure the first seconds of every pair. `files`: option -> file, of WEIGHTS.

    Raises: MediaError, ConfigError, CheckpointError, DependencyError.
    """
    pairs, alone = find_pairs(videos, truth)
    if alone:
        say(f"note: {len(alone)} videos have no partner and are left out: {', '.join(alone[:5])}")
    pairs = pairs[:clips]
    made = {
        row: row.make(files.get(row.weights or "", Path()), device)
        for row in ROWS
        if row.weights is None or row.weights in files
    }
    for i, (name, video, true) in enumerate(pairs):
        pair = Pair.read(name, video, true, reader, seconds)
        for measure in made.values():
            measure.add(pair)
        say(f"{i + 1} of {len(pairs)}: {name}, {len(pair.made.frames)} frames")
    table = Table({"videos": str(videos), "truth": str(truth), "pairs": len(pairs), "seconds": seconds})
    for row in ROWS:
        found = made[row].values() if row in made else dict.fromkeys(row.names, NOTHING)
        remark = _remark(row, files)
        for name, value in found.items():
            table.values[name], table.better[name] = value, row.better
            lacking = row in made and not value.count
            table.remarks[name] = f"{remark or name}: too few frames, faces or sound" if lacking else remark
    return table


def _remark(row: Row, files: Mapping[str, Path]) -> str:
    if row.weights is None:
        return ""
    known = WEIGHTS[row.weights]
    if row.weights not in files:
        return f"not measured: needs {known.remedy}"
    path = files[row.weights]
    if path.is_dir():
        return f"{path.name}"
    found = file_sha256(path)
    other = "" if found.startswith(known.sha256) else f", not the papers' {known.sha256[:8]}"
    return f"{path.name}, sha256 {found[:8]}{other}"
