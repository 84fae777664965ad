"""nodes/adapters/folders.py without ComfyUI: on its typed stand-in, with every folder inside one."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def adapters(folder: Path) -> Any:
    """The module, with ComfyUI's folders set to `folder`."""
    paths, module = _load()
    paths.models_dir = paths.input_directory = str(folder)
    for key in (module.FOLDER, *module.COMFYUI_FOLDERS.values()):
        paths.folder_names_and_paths[key] = ([str(folder)], set())
    module.register_folders()
    return module


@functools.lru_cache(maxsize=1)
def _load() -> tuple[Any, Any]:
    place = ROOT / "folder-paths-stubs" / "folder_paths" / "__init__.py"
    spec = importlib.util.spec_from_file_location("folder_paths", place)
    assert spec is not None and spec.loader is not None
    paths = importlib.util.module_from_spec(spec)
    sys.modules["folder_paths"] = paths
    spec.loader.exec_module(paths)
    for name in ("", "nodes", "nodes/adapters"):
        package = ModuleType(".".join(["letstalk_fuzzed", *name.split("/")]).strip("."))
        package.__path__ = [str(ROOT / name)]
        sys.modules[package.__name__] = package
    return paths, importlib.import_module("letstalk_fuzzed.nodes.adapters.folders")
