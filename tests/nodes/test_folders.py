"""Model folders, on the stand-in for ComfyUI's folder_paths; and the stand-in against the real thing."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def signatures(source: str) -> dict[str, list[str]]:
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {node.name: [argument.arg for argument in node.args.args] for node in functions}


def test_only_safetensors_of_models_letstalk_are_listed(folder_paths: ModuleType, folders: ModuleType) -> None:
    models = Path(folder_paths.models_dir) / "letstalk" / "demo"
    models.mkdir(parents=True)
    for name in ("dit.safetensors", "notes.txt"):
        (models / name).touch()
    folders.register_folders()
    assert folder_paths.get_filename_list("letstalk") == [str(Path("demo", "dit.safetensors"))]


def test_registering_twice_keeps_folders_and_extensions_of_the_user(
    folder_paths: ModuleType, folders: ModuleType
) -> None:
    folder_paths.folder_names_and_paths["letstalk"] = (["/models/mine"], {".gguf"})
    folders.register_folders()
    folders.register_folders()
    paths, extensions = folder_paths.folder_names_and_paths["letstalk"]
    assert paths == [str(Path(folder_paths.models_dir) / "letstalk"), "/models/mine"]
    assert extensions == {".gguf", ".safetensors", ".sft"}


def test_a_name_cannot_climb_out_of_the_model_folder(folder_paths: ModuleType, folders: ModuleType) -> None:
    folders.register_folders()
    secret = Path(folder_paths.models_dir) / "secret.safetensors"
    secret.parent.mkdir(parents=True)
    secret.touch()
    assert folder_paths.get_full_path("letstalk", "../secret.safetensors") is None


def test_the_stand_in_has_the_signatures_of_comfyui(comfyui: Path) -> None:
    real = signatures((comfyui / "folder_paths.py").read_text(encoding="utf-8"))
    stub = signatures((ROOT / "folder-paths-stubs/folder_paths/__init__.py").read_text(encoding="utf-8"))
    assert stub == {name: real.get(name) for name in stub}
