"""Results of an evaluation: JSON for machines, Markdown tables, plots and contact sheets for the eye."""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from letstalk_core.errors import OutputError

from ..output import pyplot, save_figure, save_json, save_text
from .face_reader import LIPS
from .intervals import Interval
from .pictures import save_sheet
from .store import ClipResult, json_numbers

logger = logging.getLogger(__name__)
SHEET_CLIPS = 6  # clips in one contact sheet
SHOWN_CLIPS = 4  # clips in the plot of lips
LIMITS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Row:
    """One line of the table of aims: what is wanted, what was found. `met` is None where nothing was measured."""

    name: str
    reach: str
    value: Interval
    met: bool | None
    remark: str = ""

    @classmethod
    def judged(cls, name: str, reach: str, value: Interval, remark: str = "") -> Row:
        """A row that is met as `reach` says: ">= 33 dB", "< 2", "0.5 .. 1.5" or "0 +- 1" of the mean, or "0 in
        interval"; other words judge nothing."""
        return cls(name, reach, value, _is_met(value, reach.split()) if value.count else None, remark)

    def to_dict(self) -> dict[str, Any]:
        value = json_numbers(self.value.to_dict())
        return {"name": self.name, "reach": self.reach, "value": value, "met": self.met, "remark": self.remark}

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
            part: [{**c.notes, "metrics": json_numbers(c.metrics)} for c in results]
            for part, results in self.parts.items()
        }
        means = {name: json_numbers(interval.to_dict()) for name, interval in self.metrics.items()}
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
        written = write_report(folder, self.to_dict(), self.to_markdown())
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
        plot = pyplot()
        if plot is None:
            logger.warning("matplotlib is not installed, so nothing is plotted; pip install matplotlib")
            return []
        written: list[Path] = []
        shown = self.parts.get("speech", [])[:SHOWN_CLIPS]
        if shown:
            figure, axes = plot.subplots(len(LIPS), len(shown), figsize=(4.5 * len(shown), 8), squeeze=False)
            for column, clip in enumerate(shown):
                for row, name in enumerate(LIPS):
                    axis = axes[row][column]
                    axis.plot(clip.curves["truth"][:, row], color="0.6", label="drawing")
                    axis.plot(clip.curves["measured"][:, row], color="tab:red", linewidth=1, label="generated")
                    axis.set_title(f"clip {column + 1}: {name}", fontsize=8)
            axes[0][0].legend(fontsize=7)
            written.append(save_figure(figure, folder / "lips.png"))
        for part in ("speech", "drift"):
            results = self.parts.get(part, [])
            names = [k for k in results[0].curves if k.startswith("series ")] if results else []
            if not names:
                continue
            figure, axes = plot.subplots(1, len(names), figsize=(5 * len(names), 3.2), squeeze=False)
            for axis, name in zip(axes[0], names, strict=True):
                curves = np.stack([c.curves[name] for c in results])
                axis.plot(curves.T, color="0.8", linewidth=0.6)
                axis.plot(np.nanmean(curves, 0), color="tab:red", linewidth=0.8)
                axis.set_title(name.removeprefix("series "), fontsize=9)
                axis.set_xlabel("clips" if part == "drift" else "frames", fontsize=8)
            written.append(save_figure(figure, folder / f"{part}_drift.png"))
        return written


def _is_met(value: Interval, reach: list[str]) -> bool | None:
    match reach:
        case [(">=" | "<=" | "<") as sign, limit, *_]:
            return bool(LIMITS[sign](value.mean, float(limit)))
        case [low, "..", high]:
            return float(low) <= value.mean <= float(high)
        case ["1", "/", part, "..", high]:
            return 1 / float(part) <= value.mean <= float(high)
        case [middle, "+-", most]:
            return abs(value.mean - float(middle)) <= float(most)
        case [number, "in", "interval"]:
            return float(number) in value
    return None


def write_report(folder: Path, values: Mapping[str, Any], text: str) -> list[Path]:
    """Write report.json and report.md; returns their paths. Raises: OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None
    save_json(folder / "report.json", values, indent=1)
    save_text(folder / "report.md", text)
    return [folder / "report.json", folder / "report.md"]
