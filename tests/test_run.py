"""run.py: what it installs, what it skips, and what it says when something is missing."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that asks for a package which is in a folder of wheels, the only index of this test."""
    wheel = tmp_path / "wheels" / "letstalk_probe-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    about = {"METADATA": "Metadata-Version: 2.1\nName: letstalk-probe\nVersion: 1.0\n", "RECORD": ""}
    about["WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("letstalk_probe.py", "")
        for name, text in about.items():
            archive.writestr(f"letstalk_probe-1.0.dist-info/{name}", text)
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", wheel.parent), ("TARGET", tmp_path / "to")):
        monkeypatch.setenv(f"PIP_{name}", str(value))
    for name, value in (("ROOT", tmp_path), ("VENV", tmp_path / ".venv")):
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setattr(run, "PYTHON", str(tmp_path / Path(run.PYTHON).relative_to(ROOT)))
    (tmp_path / "requirements.txt").write_text("letstalk-probe>=0.5\n")
    (tmp_path / "constraints.txt").write_text("")
    return tmp_path


@pytest.fixture
def venv(checkout: Path) -> Path:
    """A stand-in for .venv: its Python is this one, and it writes down how it is called."""
    if os.name == "nt":
        pytest.skip("the stand-in Python is a shell script")
    python = Path(run.PYTHON)
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> "{checkout}/calls"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


def installations(checkout: Path) -> int:
    return (checkout / "calls").read_text().count(f"-c {checkout / 'constraints.txt'}")


def test_an_old_python_can_read_the_file() -> None:
    ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_only_the_standard_library_is_imported() -> None:
    tree = ast.parse((ROOT / "run.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_an_old_python_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "version_info", (3, 8, 10))
    for which, remedy in ((None, "install Python"), ("/bin/python3.12", r"run: python3\.12 run\.py demo")):
        monkeypatch.setattr(run.shutil, "which", lambda name, which=which: which)
        with pytest.raises(run.Stop, match=rf"needs Python 3\.10 or newer, this is [\d.]+; {remedy}"):
            run.main(["demo"])


def test_a_python_that_has_everything_is_used_without_a_venv(checkout: Path) -> None:
    (checkout / "requirements.txt").write_text("pytest>=1.0\nno-such-package; python_version<'3.0'\n")
    assert run.prepare("demo") == sys.executable
    assert not run.VENV.exists()


def test_only_what_was_asked_for_since_is_installed_again(checkout: Path, venv: Path) -> None:
    assert run.prepare("demo") == run.prepare("demo") == str(venv)
    assert (checkout / "to" / "letstalk_probe.py").exists() and installations(checkout) == 1
    (checkout / "constraints.txt").write_text("letstalk-probe==1.0\n")
    run.prepare("demo")
    assert installations(checkout) == 2


def test_a_venv_made_by_hand_is_used_as_it_is(checkout: Path, venv: Path) -> None:
    run.install("demo", ["pytest>=1.0"])
    assert installations(checkout) == 0


def test_a_failed_installation_is_tried_again_or_done_without(
    checkout: Path, venv: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with pytest.raises(run.Stop, match="pip failed, see above; check network .HTTPS_PROXY"):
            run.install("demo", ["no-such-package>=1.0"])
    assert installations(checkout) == 2
    assert "No matching distribution found for no-such-package" in capfd.readouterr().err
    run.install("espeak-ng", ["no-such-package"], "tests that let espeak-ng speak")
    assert "going on without tests that let espeak-ng speak" in capfd.readouterr().out


def test_a_package_that_is_not_the_tested_one_is_not_installed(checkout: Path, venv: Path) -> None:
    """The index serves another file of the same name and version."""
    good = hashlib.sha256(next((checkout / "wheels").iterdir()).read_bytes()).hexdigest()
    for digest in ("0" * 64, good):
        (checkout / "hashes.txt").write_text(f"letstalk-probe==1.0 --hash=sha256:{digest}\n")
        if digest == good:
            run.prepare("demo")
        else:
            with pytest.raises(run.Stop, match="pip failed"):
                run.prepare("demo")
        assert (checkout / "to" / "letstalk_probe.py").exists() == (digest == good)


def test_packages_that_are_the_same_for_all_systems_have_hashes_of_the_tested_version() -> None:
    tested = run.read_lines(ROOT / "constraints.txt")
    hashed = run.read_lines(ROOT / "hashes.txt")
    assert {line.partition(" --hash")[0] for line in hashed} <= {re.sub(r";\s*", "; ", line) for line in tested}
    assert {line.partition("==")[0] for line in hashed} >= {"einops", "transformers", "kornia", "accelerate"}
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}$", line) for line in hashed)


def test_a_full_disk_is_noticed_before_anything_is_made(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0.5e9))
    with pytest.raises(run.Stop, match="not enough disk space .*make room"):
        run.prepare("demo")
    assert not run.VENV.exists()


def test_a_folder_that_is_no_venv_is_left_alone(checkout: Path) -> None:
    run.VENV.mkdir()
    (run.VENV / "diary.txt").touch()
    with pytest.raises(run.Stop, match="holds no Python"):
        run.prepare("demo")
    assert (run.VENV / "diary.txt").exists()


def test_a_wrong_comfyui_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(run.Stop, match="COMFYUI_PATH=.* is not a ComfyUI folder"):
        run.find_comfyui()


def test_comfyui_that_cannot_be_fetched_is_skipped_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(run, "CACHE", tmp_path / "cache" / "ComfyUI")
    monkeypatch.setattr(run, "COMFYUI_URL", str(tmp_path / "nothing.git"))
    assert run.find_comfyui(fetch=True) is None
    assert "going on without" in capsys.readouterr().out


def test_help_needs_nothing_and_what_is_wrong_is_named(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--help"]) == 0
    assert "python3 run.py demo" in capsys.readouterr().out
    with pytest.raises(run.Stop, match="unknown command 'dmeo'; known are demo and test"):
        run.main(["dmeo"])
    with pytest.raises(run.Stop, match="is not complete; clone the repository again"):
        run.main(["demo"])


def test_the_demo_runs_generate_twice_unless_it_fails(
    checkout: Path, venv: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assets = checkout / "letstalk_core" / "demo"
    for name in ("dit.safetensors", "portraits/eva.jpg", "portraits/ada.png", "speech/hello.wav"):
        (assets / name).parent.mkdir(parents=True, exist_ok=True)
        (assets / name).touch()
    people = {"eva.jpg": "demo", "ada.png": "demo_drawn"}
    for script, code, made in (("exit 0", 0, 2), ('case "$*" in *generate*) exit 3;; esac', 3, 1)):
        venv.write_text(f'#!/bin/sh\necho "$@"\n{script}\n')
        assert run.main(["demo", "--steps", "4"]) == code
        lines = [line for line in capfd.readouterr().out.splitlines() if "cli.__main__ generate" in line]
        assert len(lines) == made
        for line, (portrait, name) in zip(lines, people.items(), strict=False):
            assert portrait in line and line.endswith("--steps 4")
            assert f"--contact-sheet {checkout / 'out' / name}.png -o {checkout / 'out' / name}.mp4" in line


def test_options_of_test_reach_pytest(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "requirements.txt").write_text("pytest>=1.0\n")
    (checkout / "test_one.py").write_text("def test_kept(): pass\n\ndef test_dropped(): assert False\n")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert run.main(["test", "-q", "-p", "no:cacheprovider", "-k", "kept"]) == 0
