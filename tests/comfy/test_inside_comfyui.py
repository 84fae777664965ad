"""The tests that need ComfyUI in their own process, run once in such a process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.comfy.inside.run import HERE, command

FILES = sorted(path.name for path in HERE.glob("test_*.py"))
PARTS = 4  # shared out among processes


@pytest.mark.parametrize("part", range(PARTS))
def test_everything_inside_comfyui_passes(part: int, comfyui: Path) -> None:
    arguments, environment = command(comfyui, ["-q", *FILES[part::PARTS]])
    result = subprocess.run(arguments, cwd=comfyui, env=environment, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stdout[-20000:] + result.stderr[-5000:]
