"""Results of single clips on disk, so that a measurement of hours goes on where it was stopped."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from letstalk_core.errors import ConfigError, OutputError
from letstalk_core.files import atomic_path

from ..output import save_json

RUN_FILE = "run.json"


@dataclass(eq=False)
class ClipResult:
    """What one clip gave.

    `metrics` by name ("group: name"), `curves` over frames or moments, `pictures` (n, h, w, 3) uint8: "sheet"
    holds two rows of frames (portrait and drawing, round trip and result), "strip" one.
    """

    metrics: dict[str, float]
    curves: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    pictures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


# Told after each clip: part, clips done, of how many, the result, and whether it is of an earlier run.
Progress = Callable[[str, int, int, ClipResult, bool], None]


class Store:
    """Finished results in `folder`, which belongs to one set of settings; without a folder nothing is kept.

    Raises: ConfigError when the folder holds results of other settings, OutputError.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self.folder = folder
        if folder is None:
            return
        path, wanted = folder / RUN_FILE, json.loads(json.dumps(settings))
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                found = None
            if found != wanted:
                raise ConfigError(
                    f"{folder}: holds results of a run with other settings or models; repeat that run, delete the"
                    " folder, or choose another output folder"
                )
            return
        save_json(path, wanted, indent=1)

    @staticmethod
    def discard(folder: Path) -> None:
        """Delete a folder of results. Raises: OutputError when it is not one, or cannot be deleted."""
        if not folder.exists():
            return
        if not (folder / RUN_FILE).is_file():
            raise OutputError(f"{folder}: is no folder of results (it has no {RUN_FILE}); move it away")
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be deleted ({error.strerror}); delete it by hand") from None

    def get(self, name: str, make: Callable[[], ClipResult]) -> tuple[ClipResult, bool]:
        """The result of that name and whether it was there already; a missing or damaged one is made and kept."""
        if self.folder is None:
            return make(), False
        path = self.folder / f"{name}.npz"
        if path.exists():
            try:
                return _load(path), True
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                path.unlink()
        result = make()
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            texts = {"metrics": json_numbers(result.metrics), "notes": result.notes}
            arrays: dict[str, Any] = {f"curve {k}": v for k, v in result.curves.items()}
            arrays |= {f"picture {k}": v for k, v in result.pictures.items()}
            np.savez_compressed(file, json=np.frombuffer(json.dumps(texts).encode(), np.uint8), **arrays)
        return result, False

    def each(
        self,
        part: str,
        count: int,
        measure: Callable[[int], ClipResult],
        progress: Progress | None = None,
        names: Sequence[str] = (),
    ) -> list[ClipResult]:
        """The results of all clips of a part, kept by number or by `names`."""
        results = []
        for index in range(count):
            name = f"{part}_{names[index] if names else f'{index:03d}'}"
            result, found = self.get(name, partial(measure, index))
            results.append(result)
            if progress is not None:
                progress(part, index + 1, count, result, found)
        return results


def _load(path: Path) -> ClipResult:
    with np.load(path, allow_pickle=False) as data:
        texts = json.loads(data["json"].tobytes())
        curves = {k.removeprefix("curve "): data[k] for k in data.files if k.startswith("curve ")}
        pictures = {k.removeprefix("picture "): data[k] for k in data.files if k.startswith("picture ")}
    metrics = {k: math.nan if v is None else v for k, v in texts["metrics"].items()}
    return ClipResult(metrics, curves, pictures, texts["notes"])


def json_numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """NaN, which JSON lacks, becomes null."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
