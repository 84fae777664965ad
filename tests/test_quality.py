"""Format, lint and types, as `pre-commit` checks them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AGAINST_COMFYUI = [  # its own code is hardly typed, and its nodes redefine execute(**kwargs) with their inputs
    "--follow-imports=silent",
    "--allow-untyped-calls",
    "--allow-subclassing-any",
    "--disable-error-code=override",
]


@pytest.mark.parametrize(
    "command", ["ruff check --no-fix", "ruff format --check", "mypy"], ids=["lint", "format", "types"]
)
def test_the_source_passes(command: str) -> None:
    check(*command.split())


def test_the_types_of_the_nodes_are_those_of_comfyui(comfyui: Path, tmp_path: Path) -> None:
    """The pack under a name of its own, as ComfyUI loads it, beside ComfyUI's modules."""
    (tmp_path / "letstalk_pack").symlink_to(ROOT, target_is_directory=True)
    options = ["--config-file", str(ROOT / "pyproject.toml"), *AGAINST_COMFYUI, "-p", "letstalk_pack.nodes"]
    check("mypy", *options, cwd=tmp_path, MYPYPATH=f"{tmp_path}{os.pathsep}{comfyui}")


def check(tool: str, *options: str, cwd: Path = ROOT, **environment: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: `python3 run.py test` installs it")
    command, env = [sys.executable, "-m", tool, *options], os.environ | environment
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
