"""The pack inside a real ComfyUI, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = "accelerate av diffusers kornia matplotlib torchaudio transformers"
IMPORT_PACK = """
import asyncio, importlib.util, sys
HEAVY = sys.argv.pop().split()
sys.argv = ["main.py", "--cpu", "--base-directory", sys.argv[1]]
import comfy.options
comfy.options.enable_args_parsing()
import comfy_api.latest, folder_paths, utils.extra_config
import nodes as builtin_nodes  # as ComfyUI has them loaded when it comes to custom nodes
pack = sys.argv[3] + "/custom_nodes/LetsTalk"
for name in [n for n in sys.modules if n.partition(".")[0] in HEAVY]:
    del sys.modules[name]  # what ComfyUI itself imported does not count
before = set(sys.modules)
spec = importlib.util.spec_from_file_location(pack.replace(".", "_x_"), pack + "/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
nodes = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
assert not hasattr(module, "NODE_CLASS_MAPPINGS"), "ComfyUI would ignore comfy_entrypoint"
assert folder_paths.folder_names_and_paths["letstalk"][1] == {".safetensors", ".sft"}
added = {name.partition(".")[0] for name in set(sys.modules) - before}
print("heavy:", sorted(added & {*HEAVY}))
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A ComfyUI base directory whose only custom node is this pack."""
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "custom_nodes" / "LetsTalk").symlink_to(ROOT, target_is_directory=True)
    return tmp_path


def python(arguments: list[str], comfyui: Path) -> str:
    """Output of a Python run in ComfyUI's folder, which must end well."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    result = subprocess.run(
        [sys.executable, *arguments], cwd=comfyui, env=environment, capture_output=True, text=True, timeout=300
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return output


def test_comfyui_loads_the_pack_without_error(comfyui: Path, base: Path) -> None:
    arguments = ["--cpu", "--quick-test-for-ci", "--disable-api-nodes", "--base-directory", str(base)]
    output = python(["main.py", *arguments, "--database-url", f"sqlite:///{base / 'comfy.db'}"], comfyui)
    assert "IMPORT FAILED" not in output, output  # ComfyUI itself would still exit with 0
    assert str(Path("custom_nodes", "LetsTalk")) in output, output


def test_importing_the_pack_imports_nothing_heavy(comfyui: Path, base: Path) -> None:
    output = python(["-c", IMPORT_PACK, str(base), HEAVY], comfyui)
    assert "heavy: []" in output, output
