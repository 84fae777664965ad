"""Typed stand-in for the part of ComfyUI's `folder_paths` that this pack uses: for type checks and unit tests.

Signatures and behaviour follow ComfyUI 0.3.64. `models_dir` and the directories are plain attributes, so that a
test points them at a temporary folder.
"""

from __future__ import annotations

import os
from pathlib import Path

base_path: str = os.path.realpath(os.curdir)
models_dir: str = os.path.join(base_path, "models")
output_directory: str = os.path.join(base_path, "output")
temp_directory: str = os.path.join(base_path, "temp")
input_directory: str = os.path.join(base_path, "input")
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}


def get_output_directory() -> str:
    return output_directory


def get_temp_directory() -> str:
    return temp_directory


def get_input_directory() -> str:
    return input_directory


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Add a folder to a key, which is created without extensions when it is new."""
    paths, _ = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if full_folder_path in paths and is_default:
        paths.remove(full_folder_path)
    if full_folder_path not in paths:
        paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    return folder_names_and_paths[folder_name][0][:]


def get_filename_list(folder_name: str) -> list[str]:
    """Names of the files in all folders of a key, relative to them; no extensions means every file."""
    paths, extensions = folder_names_and_paths[folder_name]
    files = ((file, path) for path in map(Path, paths) for file in path.rglob("*") if file.is_file())
    found = {str(file.relative_to(path)) for file, path in files}
    return sorted(name for name in found if not extensions or Path(name).suffix.lower() in extensions)


def get_full_path(folder_name: str, filename: str) -> str | None:
    """Path of a file of a key, or None; a name cannot climb out of the folders."""
    if folder_name not in folder_names_and_paths:
        return None
    inside = os.path.relpath(os.path.join("/", filename), "/")
    for path in folder_names_and_paths[folder_name][0]:
        full = os.path.join(path, inside)
        if os.path.isfile(full):
            return full
    return None


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    full = get_full_path(folder_name, filename)
    if full is None:
        raise FileNotFoundError(f"Model in folder '{folder_name}' with filename '{filename}' not found.")
    return full
