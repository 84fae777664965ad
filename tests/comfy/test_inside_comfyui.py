"""The tests that need ComfyUI in their own process, run once in such a process."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = sorted(path.name for path in (HERE / "inside").glob("test_*.py"))
PARTS = 4  # shared out among processes


@pytest.mark.parametrize("part", range(PARTS))
def test_everything_inside_comfyui_passes(part: int, comfyui: Path) -> None:
    spec = importlib.util.spec_from_file_location("letstalk_inside", HERE / "inside" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments, environment = module.command(comfyui, ["-q", *FILES[part::PARTS]])
    result = subprocess.run(arguments, cwd=comfyui, env=environment, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stdout[-20000:] + result.stderr[-5000:]
