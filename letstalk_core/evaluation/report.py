"""Results of an evaluation: JSON for machines, a Markdown table, plots and contact sheets for the eye."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import atomic_path
from ..errors import OutputError
from .lips import LIPS
from .metrics import Interval

__all__ = ["ClipResult", "Report"]

logger = logging.getLogger(__name__)
TILE = 128  # pixels of a frame in the contact sheets
SHEET_CLIPS = 6  # clips in one contact sheet


@dataclass(eq=False)
class ClipResult:
    """What one clip gave. `sheet` holds two rows of frames: portrait and drawing, round trip and result."""

    metrics: dict[str, float]
    truth: NDArray[np.float64]  # (t, 4), columns LIPS
    measured: NDArray[np.float64]
    series: dict[str, NDArray[np.float64]]
    sheet: Tensor = field(repr=False)
    text: str = ""
    voice: str = ""
    skin: str = ""


@dataclass(eq=False)
class Report:
    """Settings, means with intervals by metric name ("group: name"), and the clips."""

    settings: dict[str, Any]
    metrics: dict[str, Interval]
    clips: list[ClipResult] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes null."""
        details = [
            {
                "text": c.text,
                "voice": c.voice,
                "skin": c.skin,
                "metrics": {k: _json(v) for k, v in c.metrics.items()},
            }
            for c in self.clips
        ]
        means = {k: {n: _json(v) for n, v in i.to_dict().items()} for k, i in self.metrics.items()}
        return {"settings": self.settings, "metrics": means, "clips": details}

    def to_markdown(self) -> str:
        """Settings and one table: mean and 95 % interval over clips."""
        settings = ", ".join(f"{k} {v}" for k, v in self.settings.items() if not isinstance(v, dict))
        lines = [f"Measured on {settings}. Mean over clips with its 95 % bootstrap interval.", ""]
        lines += ["| metric | value | clips |", "|---|---|---|"]
        lines += [f"| {name} | {interval} | {interval.count} |" for name, interval in sorted(self.metrics.items())]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> list[Path]:
        """Write report.json, report.md, lips.png, drift.png and sheet_N.png; returns what was written.

        Without matplotlib the two plots are left out. Raises: OutputError.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None
        written = [folder / "report.json", folder / "report.md"]
        for path, text in zip(written, (json.dumps(self.to_dict(), indent=1), self.to_markdown()), strict=True):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        for first in range(0, len(self.clips), SHEET_CLIPS):
            path = folder / f"sheet_{first // SHEET_CLIPS}.png"
            _save_sheet([c.sheet for c in self.clips[first : first + SHEET_CLIPS]], path)
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

        shown = self.clips[:4]
        figure, axes = pyplot.subplots(len(LIPS), len(shown), figsize=(4.5 * len(shown), 8), squeeze=False)
        for column, clip in enumerate(shown):
            for row, name in enumerate(LIPS):
                axis = axes[row][column]
                axis.plot(clip.truth[:, row], color="0.6", label="drawing")
                axis.plot(clip.measured[:, row], color="tab:red", linewidth=1, label="generated")
                axis.set_title(f"clip {column + 1}: {name}", fontsize=8)
        axes[0][0].legend(fontsize=7)
        figure.tight_layout()
        names = list(self.clips[0].series) if self.clips else []
        drift, drift_axes = pyplot.subplots(
            1, max(1, len(names)), figsize=(5 * max(1, len(names)), 3.2), squeeze=False
        )
        for axis, name in zip(drift_axes[0], names, strict=False):
            curves = np.stack([c.series[name] for c in self.clips])
            axis.plot(curves.T, color="0.8", linewidth=0.6)
            axis.plot(np.nanmean(curves, 0), color="tab:red")
            axis.set_title(f"{name} over frames", fontsize=9)
        drift.tight_layout()
        paths = [folder / "lips.png", folder / "drift.png"]
        for plot, path in zip((figure, drift), paths, strict=True):
            with atomic_path(path) as temporary:
                plot.savefig(temporary, dpi=80, format="png")
            pyplot.close(plot)
        return paths


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _save_sheet(sheets: list[Tensor], path: Path) -> None:
    """Two rows of frames a clip: drawing above, generated below; portrait and its round trip first."""
    from PIL import Image

    rows = []
    for sheet in sheets:
        x = rearrange(sheet.float(), "n h w c -> n c h w")
        small = torch.nn.functional.interpolate(x, size=(TILE, TILE), mode="area").round().to(torch.uint8)
        rows.append(rearrange(small, "(r n) c h w -> (r h) (n w) c", r=2))
    image = torch.cat(rows)
    with atomic_path(path) as temporary:
        Image.fromarray(image.numpy()).save(temporary, format="PNG")
