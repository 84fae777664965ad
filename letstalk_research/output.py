"""Files that are written whole or not at all (`letstalk_core.files.atomic_path`). All raise OutputError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.files import atomic_path


def save_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_json(path: Path, value: Any, indent: int | None = None) -> None:
    save_text(path, json.dumps(value, indent=indent))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    with atomic_path(path) as temporary:
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, str(temporary), metadata=None if metadata is None else dict(metadata))


def save_png(image: Tensor | NDArray[np.uint8], path: Path) -> None:
    """An image (h, w, 3) uint8."""
    from PIL import Image

    pixels = image.cpu().numpy() if isinstance(image, Tensor) else image
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def pyplot() -> Any:
    """matplotlib's pyplot, which draws into files; None where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(figure: Any, path: Path, dpi: int = 80) -> Path:
    """A figure of `pyplot` as PNG, which is closed then."""
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")
    pyplot().close(figure)
    return path
