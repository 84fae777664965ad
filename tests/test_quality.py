"""Format, lint and types, as `pre-commit` checks them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command", ["ruff check --no-fix", "ruff format --check", "mypy"], ids=["lint", "format", "types"]
)
def test_the_source_passes(command: str) -> None:
    tool, *options = command.split()
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: `python3 run.py test` installs it")
    result = subprocess.run(
        [sys.executable, "-m", tool, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
