"""Results of an evaluation: JSON for machines, Markdown tables, plots and contact sheets for the eye."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from letstalk_core.errors import OutputError
from letstalk_core.files import atomic_path

from .face_reader import LIPS
from .intervals import Interval
from .pictures import save_sheet
from .store import ClipResult

__all__ = ["Report", "Row"]

logger = logging.getLogger(__name__)
SHEET_CLIPS = 6  # clips in one contact sheet
SHOWN_CLIPS = 4  # clips in the plot of lips


@dataclass(frozen=True)
class Row:
    """One line of the table of aims: what is wanted, what was found. `met` is None where nothing was measured."""

    name: str
    reach: str
    value: Interval
    met: bool | None
    remark: str = ""

    def to_dict(self) -> dict[str, Any]:
        found = {k: _json(v) for k, v in self.value.to_dict().items()}
        return {"name": self.name, "reach": self.reach, "value": found, "met": self.met, "remark": self.remark}

    def __str__(self) -> str:
        verdict = "not measured" if self.met is None else "yes" if self.met else "**no**"
        return f"| {self.name} | {self.reach} | {self.value} | {verdict} | {self.value.count} | {self.remark} |"


@dataclass(eq=False)
class Report:
    """Settings, aims, means with intervals by metric name ("group: name"), and the clips of each part."""

    settings: dict[str, Any]
    metrics: dict[str, Interval]
    parts: dict[str, list[ClipResult]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes null."""
        clips = {
            part: [{**c.notes, "metrics": {k: _json(v) for k, v in c.metrics.items()}} for c in results]
            for part, results in self.parts.items()
        }
        means = {k: {n: _json(v) for n, v in i.to_dict().items()} for k, i in self.metrics.items()}
        return {
            "settings": self.settings,
            "rows": [r.to_dict() for r in self.rows],
            "metrics": means,
            "clips": clips,
        }

    def to_markdown(self) -> str:
        """Settings, the table of aims if there is one, and all metrics."""
        settings = ", ".join(f"{k} {v}" for k, v in self.settings.items() if not isinstance(v, dict))
        lines = [f"Measured on {settings}. Mean over clips with its 95 % bootstrap interval.", ""]
        if self.rows:
            lines += ["| measure | reach | found | met | clips | remark |", "|---|---|---|---|---|---|"]
            lines += [*map(str, self.rows), ""]
        lines += ["| metric | value | clips |", "|---|---|---|"]
        lines += [f"| {name} | {interval} | {interval.count} |" for name, interval in sorted(self.metrics.items())]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> list[Path]:
        """Write report.json, report.md, plots and contact sheets; returns what was written.

        Without matplotlib the plots are left out. Raises: OutputError.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None
        written = [folder / "report.json", folder / "report.md"]
        for path, text in zip(written, (json.dumps(self.to_dict(), indent=1), self.to_markdown()), strict=True):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        for part, results in self.parts.items():
            for kind in dict.fromkeys(kind for c in results for kind in c.pictures):
                pictures = [c.pictures[kind] for c in results if kind in c.pictures]
                for first in range(0, len(pictures), SHEET_CLIPS):
                    path = folder / f"{part}_{kind}_{first // SHEET_CLIPS}.png"
                    rows = {"sheet": 2, "strip": 1, "films": 3}.get(kind)
                    save_sheet(pictures[first : first + SHEET_CLIPS], path, rows)
                    written.append(path)
        return written + self._plot(folder)

    def _plot(self, folder: Path) -> list[Path]:
        try:
            import matplotlib
        except ImportError:
            logger.warning("matplotlib is not installed, so nothing is plotted; pip install matplotlib")
            return []
        matplotlib.use("Agg")
        from matplotlib import pyplot

        plots: list[tuple[Path, Any]] = []
        shown = self.parts.get("speech", [])[:SHOWN_CLIPS]
        if shown:
            figure, axes = pyplot.subplots(len(LIPS), len(shown), figsize=(4.5 * len(shown), 8), squeeze=False)
            for column, clip in enumerate(shown):
                for row, name in enumerate(LIPS):
                    axis = axes[row][column]
                    axis.plot(clip.curves["truth"][:, row], color="0.6", label="drawing")
                    axis.plot(clip.curves["measured"][:, row], color="tab:red", linewidth=1, label="generated")
                    axis.set_title(f"clip {column + 1}: {name}", fontsize=8)
            axes[0][0].legend(fontsize=7)
            plots.append((folder / "lips.png", figure))
        for part in ("speech", "drift"):
            results = self.parts.get(part, [])
            names = [k for k in results[0].curves if k.startswith("series ")] if results else []
            if not names:
                continue
            figure, axes = pyplot.subplots(1, len(names), figsize=(5 * len(names), 3.2), squeeze=False)
            for axis, name in zip(axes[0], names, strict=True):
                curves = np.stack([c.curves[name] for c in results])
                axis.plot(curves.T, color="0.8", linewidth=0.6)
                axis.plot(np.nanmean(curves, 0), color="tab:red", linewidth=0.8)
                axis.set_title(name.removeprefix("series "), fontsize=9)
                axis.set_xlabel("clips" if part == "drift" else "frames", fontsize=8)
            plots.append((folder / f"{part}_drift.png", figure))
        for path, figure in plots:
            figure.tight_layout()
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=80, format="png")
            pyplot.close(figure)
        return [path for path, _ in plots]


def _json(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
