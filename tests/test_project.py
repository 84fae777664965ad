"""What is public, what is declared and where, checked on the source."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import run
from tests.test_architecture import COMFYUI, imports

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
CORE, RESEARCH = ROOT / "letstalk_core", ROOT / "letstalk_research"

OTHER_NAMES = {"c2pa": "c2pa-python"}  # of distributions that need not be installed
HEAVY = ["accelerate", "av", "c2pa", "diffusers", "kornia", "matplotlib", "torchaudio", "transformers"]


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def tracked() -> list[str]:
    """Names of the files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def found_in_texts(pattern: str) -> list[str]:
    """Where a pattern stands in the files that git tracks."""
    binary = {".safetensors", ".png", ".jpg", ".wav", ".mp3", ".mp4"}
    texts = {
        name: (ROOT / name).read_text(encoding="utf-8") for name in tracked() if Path(name).suffix not in binary
    }
    return [f"{name}: {match.group()}" for name, text in texts.items() for match in re.finditer(pattern, text)]


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def dependencies() -> list[str]:
    """With those of all extras."""
    return project()["dependencies"] + sum(project()["optional-dependencies"].values(), [])


def test_only_the_adapters_reach_into_comfyui() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "nodes").glob("*.py")
        for name, relative in imports(path)
        if not relative
        and name.partition(".")[0] in COMFYUI | {"nodes"}
        and not name.startswith("comfy_api.latest")
    ]
    assert not wrong, "; ".join(wrong)


def test_a_name_with_an_underscore_stays_in_its_module() -> None:
    """So all other names of a module are what it offers, and no list has to repeat them."""
    places = [*sources(CORE), *sources(RESEARCH), *sources(ROOT / "nodes")]
    found = [(path, name) for path in places for name, own in imports(path) if own or name.startswith("letstalk_")]
    borrowed = [f"{path.relative_to(ROOT)}: {name}" for path, name in found if re.search(r"\._(?!_)", name)]
    assert not borrowed, "; ".join(borrowed)


def test_every_package_that_is_imported_is_declared() -> None:
    declared = {re.match(r"[\w.-]+", line).group().lower() for line in dependencies()}  # type: ignore[union-attr]
    distributions = packages_distributions()
    undeclared = set()
    for path in [*sources(CORE), *sources(RESEARCH)]:
        for top in {name.partition(".")[0] for name, relative in imports(path) if not relative}:
            missing = OTHER_NAMES.get(top, top.replace("_", "-"))
            known = {dist.lower() for dist in distributions.get(top, [missing])}
            if top not in {CORE.name, *sys.stdlib_module_names} and not known & declared:
                undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert not undeclared, "\n".join(sorted(undeclared))


def test_the_networks_and_the_loop_import_nothing_heavy() -> None:
    modules = ["networks.load", "sampling.long_video", "sampling.clip", "networks.presets", "cli.__main__"]
    code = "import sys\n" + "".join(f"import letstalk_core.{name}\n" for name in modules)
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_requirement_files_repeat_what_pyproject_declares() -> None:
    table = project()
    extras = table["optional-dependencies"]
    assert run.read_lines(ROOT / "requirements.txt") == table["dependencies"]
    assert run.read_lines(ROOT / "requirements-test.txt") == extras["train"] + extras["test"]
    assert repr(extras["espeak"]).replace("'", '"') in (ROOT / "run.py").read_text(encoding="utf-8")


def test_dependencies_are_lower_bounds_that_run_py_understands() -> None:
    form = re.compile(r"[\w-]+>=[\d.]+(; python_version<'3\.\d+')?")
    assert [line for line in dependencies() if not form.fullmatch(line)] == []


def test_every_dependency_has_a_tested_version() -> None:
    tested = {line.partition("==")[0] for line in run.read_lines(ROOT / "constraints.txt")}
    assert {line.partition(">=")[0] for line in dependencies()} <= tested


def test_version_is_the_same_everywhere() -> None:
    from letstalk_core import __version__

    assert project()["version"] == __version__
    assert f"[{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_file_names_a_package_registry_or_a_place_on_one_machine() -> None:
    hosts = "|".join(("py" + "pi", "python" + "hosted", "npm" + "js", "deb" + "ian"))
    places = "|".join(("ro" + "ot", "wo" + "rk", "ho" + "me"))
    pattern = rf"\b(?:{hosts})\.org|(?<![\w.~-])/(?:{places})/\w|\.\./shar" + "ed"
    assert found_in_texts(pattern) == []


def test_no_file_is_left_unfinished() -> None:
    assert found_in_texts(r"\b(?:TO" + "DO|FIX" + "ME|XX" + "X)" + r"\b") == []


def test_the_registrys_archive_is_small_and_free_of_what_comfyui_never_runs() -> None:
    """Of the tracked files, what `.comfyignore` leaves is what ComfyUI-Manager downloads."""
    ignored = tuple(run.read_lines(ROOT / ".comfyignore"))
    packed = [name for name in tracked() if not name.startswith(ignored)]
    apart = ("letstalk_research/", "tests/", "benchmarks/", "scripts/")
    assert [name for name in packed if name.startswith(apart)] == []
    assert sum((ROOT / name).stat().st_size for name in packed) < 70e6


@pytest.mark.parametrize("path", sources(ROOT / "scripts"), ids=lambda path: path.stem)
def test_what_scripts_import_of_the_project_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("letstalk_"):
            module = importlib.import_module(str(node.module))
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name):
                    importlib.import_module(f"{node.module}.{name}")
