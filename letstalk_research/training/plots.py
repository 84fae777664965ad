"""What a run leaves for the eye: CSV logs, curves drawn from them, and strips of sample images."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..output import pyplot, save_figure, save_text

logger = logging.getLogger(__name__)


class CsvLog:
    """A CSV file with one row per logged step; each row is appended in one write.

    Opening it for a resumed run drops the rows after `last_step`, which that run writes again.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        self.columns: list[str] = []
        if path.is_file():
            rows = read_csv(path)
            self.columns = list(rows[0]) if rows else []
            self._rewrite([r for r in rows if r.get("step", "").isdigit() and int(r["step"]) <= last_step])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        row = {"step": str(step), **{k: f"{v:.6g}" for k, v in values.items()}}
        if any(k not in self.columns for k in row):
            rows = read_csv(self.path) if self.path.is_file() else []
            self.columns += [k for k in row if k not in self.columns]
            self._rewrite(rows)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_csv_line([row.get(c, "") for c in self.columns]))

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        if not self.columns:
            return
        lines = [_csv_line(self.columns), *(_csv_line([r.get(c) or "" for c in self.columns]) for r in rows)]
        save_text(self.path, "".join(lines))


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a head line, by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def plot_curves(logs: Sequence[Path], picture: Path) -> None:
    """Draw every column of the logs over the step, one small plot each. Without matplotlib nothing is drawn."""
    plot = pyplot()
    if plot is None:
        logger.warning("matplotlib is not installed, so %s is not drawn; pip install matplotlib", picture)
        return
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for log in logs:
        for row in read_csv(log) if log.is_file() else []:
            for name, text in row.items():
                try:
                    value, step = float(text), float(row["step"])
                except (TypeError, ValueError):
                    continue
                if name not in ("step", "seconds") and math.isfinite(value):
                    xs, ys = curves.setdefault(f"{log.stem}: {name}", ([], []))
                    xs.append(step)
                    ys.append(value)
    if not curves:
        return
    columns = min(4, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure, axes = plot.subplots(rows, columns, figsize=(4 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    for axis, (name, (xs, ys)) in zip(axes.flat, curves.items(), strict=False):
        axis.plot(xs, ys, linewidth=1)
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=6)
        axis.grid(alpha=0.3)
        if min(ys) > 0 and "loss" in name:
            axis.set_yscale("log")
    save_figure(figure, picture, dpi=90)


def grid(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Images (h, w, 3) uint8 of equal size laid out in rows -> one image; short rows are filled with black."""
    height, width, _ = rows[0][0].shape
    columns = max(len(row) for row in rows)
    blank = torch.zeros(height, width, 3, dtype=torch.uint8)
    return torch.cat([torch.cat([*row, *[blank] * (columns - len(row))], 1) for row in rows], 0)
