"""The pack inside a real ComfyUI, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = "accelerate av diffusers kornia matplotlib torchaudio transformers"
IMPORT_PACK = """
import asyncio, importlib.util, io, pathlib, sys, time
HEAVY = sys.argv.pop().split()
sys.argv = ["main.py", "--cpu", "--base-directory", sys.argv[1]]
import comfy.options
comfy.options.enable_args_parsing()
import comfy_api.latest, folder_paths, utils.extra_config
import nodes as builtin_nodes  # as ComfyUI has them loaded when it comes to custom nodes
pack = sys.argv[3] + "/custom_nodes/LetsTalk"
for name in [n for n in sys.modules if n.partition(".")[0] in HEAVY]:
    del sys.modules[name]  # what ComfyUI itself imported does not count
class Counted(io.FileIO):
    total = 0
    def read(self, size=-1):
        found = super().read(size)
        Counted.total += len(found)
        return found
models, plain_open = pathlib.Path(folder_paths.models_dir), pathlib.Path.open
pathlib.Path.open = lambda self, *how, **more: (
    Counted(self) if self.is_relative_to(models) else plain_open(self, *how, **more)
)
before, started = set(sys.modules), time.perf_counter()
spec = importlib.util.spec_from_file_location(pack.replace(".", "_x_"), pack + "/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
nodes = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
for node in nodes:
    node.GET_SCHEMA()  # as ComfyUI does with each; lists of models are made here
print(f"import: {time.perf_counter() - started:.2f} s, {Counted.total} bytes of models read")
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


def write_foreign_models(models: Path, count: int, tensors: int) -> int:
    """Files of large models of other packs, without their data. Returns the bytes of their headers."""
    total = 0
    for index in range(count):
        name = "model.diffusion_model.double_blocks.{}.img_attn.proj.weight"
        entry = {"dtype": "BF16", "shape": [3072, 3072], "data_offsets": [0, 2 * 3072**2]}
        header = json.dumps({name.format(i): entry for i in range(tensors)}).encode()
        path = models / ("diffusion_models", "vae", "audio_encoders")[index % 3] / f"{index}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(file.tell() + 2 * 3072**2)  # a hole: it takes no room on the disk
        total += 8 + len(header)
    return total


def test_importing_the_pack_imports_nothing_heavy_and_reads_headers_of_models_alone(
    comfyui: Path, base: Path
) -> None:
    headers = write_foreign_models(base / "models", count=50, tensors=1500)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-c", IMPORT_PACK, str(base), HEAVY]
    result = subprocess.run(command, cwd=comfyui, env=environment, capture_output=True, text=True, timeout=600)
    output = result.stdout + result.stderr
    assert result.returncode == 0 and "heavy: []" in output, output
    found = re.search(r"import: ([\d.]+) s, (\d+) bytes", output)
    assert found, output
    print(found[0], "of 50 models")
    assert int(found[2]) == headers
