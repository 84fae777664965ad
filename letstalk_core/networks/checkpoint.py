"""Model files: safetensors whose header holds the config, so that a file describes itself.

Public files in pickle formats are read for their tensors only, for conversion.

Header: {"letstalk.version": "1", "letstalk.parts": "<JSON>", …free text}. The parts, {"dit": {"kind": "dit",
"config": {…}}, "audio_projection": {…}}, name the networks in the file; the name is the prefix of a network's
keys.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CheckpointError, DependencyError, first_line
from ..files import atomic_path
from .config import Config
from .configs import config_class

VERSION = "1"
# What reading a file raises that holds something else than it should.
FAULTS = (OSError, struct.error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError)
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself


@dataclass(frozen=True)
class CheckpointHeader:
    """What a model file says of itself, read without loading a tensor."""

    path: Path
    parts: dict[str, Config]  # name of the part -> its config; empty for a foreign safetensors file
    metadata: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)

    def part(self, kind: str) -> tuple[str, Any]:
        """Name and config of the part of this kind. Raises: CheckpointError."""
        for name, config in self.parts.items():
            if config.kind == kind:
                return name, config
        found = sorted(c.kind for c in self.parts.values()) or "no LetsTalk config"
        raise CheckpointError(f"{self.path}: holds {found}, not a model of kind {kind!r}; give the right file")


def read_header(path: str | os.PathLike[str]) -> CheckpointHeader:
    """Read the header of a safetensors file. Raises: CheckpointError if missing, damaged or not safetensors."""
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path}: is not a file; give the path of a .safetensors model")
        size = status.st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path}: not a safetensors file, or cut short; download or convert it again"
                )
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        shapes = {k: tuple(int(n) for n in v["shape"]) for k, v in header.items()}
        dtypes = {k: str(v["dtype"]) for k, v in header.items()}
        end = max((int(v["data_offsets"][1]) for v in header.values()), default=0)
        if not isinstance(metadata, dict) or size < 8 + length + end:
            raise CheckpointError(
                f"{path}: is cut short ({size} bytes, needs {8 + length + end}); get the file again"
            )
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; give the path of a .safetensors model") from None
    except FAULTS as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); .pt and .ckpt files go through `letstalk convert`"
        ) from None
    return CheckpointHeader(path, _parse_parts(path, metadata), metadata, shapes, dtypes)


def _parse_parts(path: Path, metadata: Mapping[str, str]) -> dict[str, Config]:
    if "letstalk.version" not in metadata:
        return {}
    if metadata["letstalk.version"] != VERSION:
        raise CheckpointError(
            f"{path}: format version {metadata['letstalk.version']!s:.40}, this LetsTalk reads {VERSION};"
            " update the pack"
        )
    try:
        parts = json.loads(metadata["letstalk.parts"])
        return {name: config_class(p["kind"]).from_dict(p["config"]) for name, p in parts.items()}
    except FAULTS as error:
        raise CheckpointError(f"{path}: its header has no valid LetsTalk config ({error})") from None


def load_tensors(path: str | os.PathLike[str], *, prefix: str = "", device: str = "cpu") -> dict[str, Tensor]:
    """Load the tensors whose names start with `prefix` (removed). Raises: CheckpointError."""
    read_header(path)  # clear errors first
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            return {k[len(prefix) :]: file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); get the file again") from None


def load_pickled_tensors(path: str | os.PathLike[str], *, device: str = "cpu") -> Mapping[str, Any]:
    """Read a .pt, .pth, .ckpt or .bin file: names to tensors, or to further such tables. No code in it is run.

    Raises: CheckpointError if missing, damaged or not such a table; DependencyError if torch is too old.
    """
    if torch.torch_version.TorchVersion(torch.__version__) < "2.6":
        raise DependencyError(
            f"{path}: torch {torch.__version__} may run code hidden in such files (CVE-2025-32434); update torch"
            " to 2.6 or newer, or take a .safetensors file"
        )
    try:
        # Training scripts commonly save their parsed arguments beside the weights: a plain record, safe to build.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location=device, weights_only=True)  # noqa: TID251
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; give the path of a checkpoint") from None
    except Exception as error:  # torch raises many kinds for damaged and for refused files
        raise CheckpointError(
            f"{path}: is damaged, or holds more than plain tensors, which is never loaded ({first_line(error)});"
            " get the file again"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not named tensors")
    return content


def check_keys(path: Any, found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> None:
    """Compare names, shapes, and whether tensors are of floating point.

    Raises: CheckpointError with the first five differences and their number.
    """
    both = sorted(set(found) & set(needed))
    differences = {
        "missing": sorted(set(needed) - set(found)),
        "unexpected": sorted(set(found) - set(needed)),
        "of the wrong shape": [
            f"{k} is {list(found[k].shape)}, needs {list(needed[k].shape)}"
            for k in both
            if found[k].shape != needed[k].shape
        ],
        "of the wrong type": [
            f"{k} is {found[k].dtype}"
            for k in both
            if found[k].is_floating_point() != needed[k].is_floating_point()
        ],
    }
    for what, names in differences.items():
        if names:
            raise CheckpointError(
                f"{path}: {len(names)} tensors {what}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''};"
                " the file does not belong to this model"
            )


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Any) -> None:
    """Load tensors into a module after checking every name and shape; dtype of the module is kept."""
    state = module.state_dict()
    check_keys(path, tensors, state)
    module.load_state_dict(dict(tensors))


def save_checkpoint(
    path: str | os.PathLike[str],
    parts: Mapping[str, tuple[Config, Mapping[str, Tensor]]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write one file holding the parts; the name of each part is the prefix of its keys ("dit.", …). Atomic."""
    path = Path(path)
    tensors = {
        f"{name}.{k}": v.detach().cpu().contiguous() for name, (_, sd) in parts.items() for k, v in sd.items()
    }
    header = {
        **(metadata or {}),
        "letstalk.version": VERSION,
        "letstalk.parts": json.dumps({n: {"kind": c.kind, "config": c.to_dict()} for n, (c, _) in parts.items()}),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), metadata=header)
