"""Work folder of an interruptible run: the latents of every finished clip, so that a later run continues exactly.

The memory bank is not stored: replaying the finished clips rebuilds it bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .checkpoint import atomic_path, load_tensors
from .errors import CheckpointError, ConfigError, OutputError
from .long_video import Clip

__all__ = ["RUN_FILE", "WorkFolder", "tensor_sha256"]

RUN_FILE = "run.json"


def tensor_sha256(tensor: Tensor) -> str:
    """A hash of the values of a tensor."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


class WorkFolder:
    """Finished clips of one run in `folder`. `begin` ties it to everything that the frames depend on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, run: dict[str, Any]) -> None:
        """Make the folder, or check that it belongs to this very run. Raises: ConfigError, OutputError."""
        text = json.dumps(run, sort_keys=True, indent=2)
        path = self.folder / RUN_FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); delete {self.folder} to start anew") from None
        if found is not None:
            changed = (
                sorted(k for k in {*run, *found} if run.get(k) != found.get(k))
                if isinstance(found, dict)
                else ["all"]
            )
            if changed:
                raise ConfigError(
                    f"{self.folder}: belongs to a run that differs in {', '.join(changed)}; repeat its command, or"
                    " delete the folder to start anew"
                )
            return
        if self.folder.is_dir() and not all(p.name.startswith(f".{RUN_FILE}.") for p in self.folder.iterdir()):
            raise OutputError(
                f"{self.folder}: is needed as work folder, but holds other files and no {RUN_FILE}; move it away"
            )
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def load(self, clip: Clip) -> Tensor | None:
        """Latents of a finished clip (b, f, c, h, w), or None. A damaged file counts as not finished."""
        path = self._path(clip)
        if not path.exists():
            return None
        try:
            latents = load_tensors(path)["latents"]
        except (CheckpointError, KeyError):
            return None
        return latents if latents.ndim == 5 and latents.shape[1] == clip.count else None

    def save(self, clip: Clip, latents: Tensor) -> None:
        """Keep a finished clip. Raises: OutputError."""
        with atomic_path(self._path(clip)) as temporary:
            save_file({"latents": latents.to("cpu", torch.float32).contiguous()}, str(temporary))

    def remove(self) -> None:
        """Delete the folder and what this class wrote to it, after the result is complete. Raises: OutputError."""
        try:
            for name in (RUN_FILE, "clip-*.safetensors", f".{RUN_FILE}.*", ".clip-*.safetensors.*"):
                for path in self.folder.glob(name):  # those with a dot are left by a killed run
                    path.unlink()
            self.folder.rmdir()
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be deleted ({error.strerror}); delete it by hand") from None

    def _path(self, clip: Clip) -> Path:
        return self.folder / f"clip-{clip.index:06d}.safetensors"
