"""Saved memory banks: where they lie, and names that cannot leave those folders."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...letstalk_core.errors import CheckpointError, ConfigError
from ...letstalk_core.networks.checkpoint import read_header
from ...letstalk_core.sampling.memory_bank import FORMAT
from .folders import FOLDER


def new_bank_path(prefix: str) -> Path:
    """The next free name in ComfyUI's output folder. Raises: ConfigError for a prefix that leaves it."""
    root = folder_paths.get_output_directory()
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix.strip() or "memory", root)
    except Exception as error:  # ComfyUI raises a bare Exception
        raise ConfigError(
            f"filename_prefix: {prefix!r} does not stay in the output folder ({error}); give a name such as"
            " letstalk/memory"
        ) from None
    return Path(folder) / f"{name}_{counter:05}_.safetensors"


def list_banks() -> list[str]:
    """Names for a file input, saved ones with the highest number first, then those of the model folders."""
    return [name for name, path in _files().items() if _is_bank(path)]


def resolve_bank(name: str) -> Path:
    """The file of a listed name, or of any file in those folders. Raises: CheckpointError."""
    found = _files().get(name)
    if found is None:
        raise CheckpointError(
            f"memory_file: {name!r} is not in output/{FOLDER} or models/{FOLDER}; save one with LetsTalk Save"
            " Memory, or press R to read the folders again"
        )
    return found


def _files() -> dict[str, Path]:
    output = Path(folder_paths.get_output_directory()) / FOLDER
    saved = sorted(output.rglob("*.safetensors"), reverse=True)  # names end in a number
    files = {f"output/{FOLDER}/{path.relative_to(output).as_posix()}": path for path in saved}
    for name in folder_paths.get_filename_list(FOLDER):
        path = folder_paths.get_full_path(FOLDER, name)
        if path is not None:
            files[f"models/{FOLDER}/{Path(name).as_posix()}"] = Path(path)
    return files


def _is_bank(path: Path) -> bool:
    try:
        return FORMAT in read_header(path).metadata
    except CheckpointError:
        return False
