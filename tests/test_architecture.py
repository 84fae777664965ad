"""The rules of docs/architecture.md, checked on the source: who imports whom, what is public, what is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "letstalk_core"

# Modules and packages of letstalk_core, top to bottom: a file imports from its own package and from rows below.
ROWS = [
    {"cli"},
    {"experiments"},
    {"pipeline", "training", "evaluation"},
    {"settings", "stages"},
    {"models"},
    {"retake"},
    {"resume"},
    {"long_video", "data", "progress", "takes"},
    {"memory_bank"},
    {"video"},  # has sound
    {"transformer", "autoencoder", "audio", "portrait", "sampling"},
    {"nn", "checkpoint", "locking", "disk_space", "media", "drift_guard", "numerical_guard", "presets"},
    {"configs"},
    {"movement"},
    {"pixels", "protocols", "errors"},
]
MEETING_POINTS = {"transformer.conditions"}  # what neighbours in a row may share
COMFYUI = {
    "comfy",
    "comfy_api",
    "comfy_config",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "nodes",
}
OTHER_NAMES = {"c2pa": "c2pa-python"}  # of distributions that need not be installed
HEAVY = ["accelerate", "av", "c2pa", "diffusers", "kornia", "matplotlib", "torchaudio", "transformers"]


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def tracked_text_files() -> Iterator[tuple[str, str]]:
    """Name and text of the files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).suffix in {".safetensors", ".png", ".jpg", ".wav", ".mp3", ".mp4"} or not (
            ROOT / name
        ).is_file():
            continue
        yield name, (ROOT / name).read_text(encoding="utf-8")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, dotted name and whether it is a relative import, of every import in a file, lazy ones too."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or "", False
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            for name in [node.module] if node.module else [alias.name for alias in node.names]:
                yield node.lineno, ".".join([*base[1:], name]), True


def row_of(component: str) -> int:
    """Row of a module or package of the core; what its `__init__` holds, such as the version, is lowest."""
    for row, names in enumerate(ROWS):
        if component in names:
            return row
    assert not (CORE / component).exists() and not (CORE / f"{component}.py").exists(), (
        f"letstalk_core/{component} has no place yet: add it to ROWS and to docs/architecture.md"
    )
    return len(ROWS)


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_imports_of_the_core_point_down() -> None:
    wrong = []
    for path in sources(CORE):
        own = path.relative_to(CORE).with_suffix("").parts[0]
        for line, name, internal in imports(path):
            target = name.partition(".")[0]
            if not internal or target == own or own == "__init__":
                continue
            lowest = row_of(own) + (name not in MEETING_POINTS)  # neighbours share a row
            if row_of(target) < lowest:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {own} must not import {name}")
    assert not wrong, "\n".join(wrong)


def test_the_core_knows_neither_comfyui_nor_its_own_absolute_name() -> None:
    banned = COMFYUI | {"letstalk_core"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources(CORE)
        for line, name, internal in imports(path)
        if not internal and name.partition(".")[0] in banned
    ]
    assert not wrong, "use relative imports, keep ComfyUI in nodes/: " + "; ".join(wrong)


def test_only_the_adapters_reach_into_comfyui() -> None:
    allowed = {"comfy_api", "comfy_api.latest"}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "nodes").glob("*.py")
        for _, name, internal in imports(path)
        if not internal and name.partition(".")[0] in COMFYUI and name not in allowed
    ]
    assert not wrong, "; ".join(wrong)


def test_every_module_of_the_core_lists_its_public_names() -> None:
    silent = []
    for path in sources(CORE):
        body = parsed(path).body
        if path.name != "__init__.py" and not any("__all__" in ast.unparse(node) for node in body[:40]):
            silent.append(str(path.relative_to(ROOT)))
    assert not silent, f"no __all__ in {silent}"


def test_every_package_that_is_imported_is_declared() -> None:
    table = project()
    lines = table["dependencies"] + sum(table["optional-dependencies"].values(), [])
    declared = {re.match(r"[\w.-]+", line).group().lower() for line in lines}  # type: ignore[union-attr]
    distributions = packages_distributions()
    undeclared = set()
    for path in sources(CORE):
        for line, name, internal in imports(path):
            top = name.partition(".")[0]
            if internal or top in sys.stdlib_module_names:
                continue
            missing = OTHER_NAMES.get(top, top.replace("_", "-"))
            known = {dist.lower() for dist in distributions.get(top, [missing])}
            if not known & declared:
                undeclared.add(f"{path.relative_to(ROOT)}:{line}: {top}")
    assert not undeclared, "\n".join(sorted(undeclared))


def test_the_networks_and_the_loop_import_nothing_heavy() -> None:
    modules = ["models", "long_video", "sampling.clip", "presets", "cli.__main__"]
    code = "import sys\n" + "".join(f"import letstalk_core.{name}\n" for name in modules)
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_requirement_files_repeat_what_pyproject_declares() -> None:
    table = project()
    extras = table["optional-dependencies"]
    assert run.read_requirements(ROOT / "requirements.txt") == table["dependencies"]
    assert run.read_requirements(ROOT / "requirements-test.txt") == extras["train"] + extras["test"]
    assert extras["espeak"] == [run.ESPEAK]


def test_dependencies_are_lower_bounds_that_run_py_understands() -> None:
    table = project()
    lines = table["dependencies"] + sum(table["optional-dependencies"].values(), [])
    form = re.compile(r"[\w-]+>=[\d.]+(; python_version<'3\.\d+')?")
    assert [line for line in lines if not form.fullmatch(line)] == []


def test_every_dependency_has_a_tested_version() -> None:
    table = project()
    lines = table["dependencies"] + sum(table["optional-dependencies"].values(), [])
    tested = {line.partition("==")[0] for line in run.read_requirements(ROOT / "constraints.txt")}
    assert {line.partition(">=")[0] for line in lines} <= tested


def test_version_is_the_same_everywhere() -> None:
    from letstalk_core import __version__

    assert project()["version"] == __version__
    assert f"[{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_file_names_a_package_registry_or_a_place_on_one_machine() -> None:
    hosts = "|".join(("py" + "pi", "python" + "hosted", "npm" + "js", "deb" + "ian"))
    places = "|".join(("ro" + "ot", "wo" + "rk", "ho" + "me"))
    pattern = re.compile(rf"\b(?:{hosts})\.org|(?<![\w.~-])/(?:{places})/\w|\.\./shar" + "ed")
    found = [f"{name}: {match.group()}" for name, text in tracked_text_files() for match in pattern.finditer(text)]
    assert not found, "\n".join(found)


def test_no_file_is_left_unfinished() -> None:
    pattern = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + "X)" + r"\b")
    found = [f"{name}: {match.group()}" for name, text in tracked_text_files() for match in pattern.finditer(text)]
    assert not found, "\n".join(found)
