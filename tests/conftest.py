"""What all tests share: seeds, ComfyUI where there is one, and its stand-in where there is none."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

import run

ROOT = Path(__file__).resolve().parents[1]
NO_COMFYUI = pytest.StashKey[str]()
collect_ignore = ["nodes/inside"]  # test_inside_comfyui.py runs them, in a process of their own

hypothesis.settings.register_profile("letstalk", deadline=None)  # busy machines are slow, not wrong
hypothesis.settings.load_profile("letstalk")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    random.seed(0)
    if "numpy" in sys.modules:  # importing them here would slow down tests that need neither
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def _load(name: str, path: Path) -> ModuleType:
    """A fresh module from a file, without leaving it in sys.modules."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in for ComfyUI's `folder_paths`, fresh, with its models in a temporary folder."""
    module = _load("folder_paths", ROOT / "folder-paths-stubs" / "folder_paths" / "__init__.py")
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    monkeypatch.setattr(module, "models_dir", str(tmp_path / "models"))
    return module


@pytest.fixture
def folders(folder_paths: ModuleType) -> ModuleType:
    """nodes/adapters/folders.py on that stand-in; the packages around it need ComfyUI."""
    return _load("letstalk_folders", ROOT / "nodes" / "adapters" / "folders.py")


@pytest.fixture(scope="session")
def comfyui(request: pytest.FixtureRequest) -> Path:
    """A real ComfyUI checkout whose packages are installed; without one the tests that ask for it are skipped."""
    folder = run.find_comfyui()
    if folder is None:
        reason = "no ComfyUI here: `python3 run.py test` fetches one, COMFYUI_PATH names another"
    elif lacks := run.missing(run.read_requirements(folder / "requirements.txt")):
        reason = f"{folder} lacks packages ({', '.join(lacks)}): `python3 run.py test` installs them"
    else:
        return folder
    request.config.stash[NO_COMFYUI] = reason
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in plain sight that the pack was not tried inside ComfyUI."""
    reason = config.stash.get(NO_COMFYUI, "")
    if reason:
        terminalreporter.section("NOT TESTED: the pack inside ComfyUI", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason)
