"""run.py: what it says when something is missing, and what it skips when nothing is."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import run

ROOT = Path(__file__).resolve().parents[1]
NO_NETWORK = (
    "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(Failed to establish a new"
    " connection: [Errno -2] Name or service not known)': /simple/torch/\n"
    "ERROR: No matching distribution found for torch>=2.4\n"
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout with requirements that nothing meets."""
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(run, "STAMP", tmp_path / ".venv" / "letstalk.json")
    (tmp_path / "run.py").write_text((ROOT / "run.py").read_text())
    (tmp_path / "requirements.txt").write_text("no-such-package>=1.0\n")
    (tmp_path / "requirements-test.txt").write_text("")
    (tmp_path / "constraints.txt").write_text("")
    return tmp_path


@pytest.fixture
def venv(checkout: Path) -> Path:
    """A stand-in for .venv: its Python is this one."""
    python = run.venv_python()
    python.parent.mkdir(parents=True)
    (run.VENV / "pyvenv.cfg").touch()
    if os.name == "nt":
        pytest.skip("the stand-in Python is a shell script")
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collects what would be installed."""
    calls: list[list[str]] = []
    monkeypatch.setattr(run, "pip_install", lambda python, requirements: calls.append(list(requirements)))
    return calls


def disk(free: float) -> Callable[[str], SimpleNamespace]:
    return lambda folder: SimpleNamespace(free=free)


def test_an_old_python_can_read_the_file() -> None:
    ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_only_the_standard_library_is_imported() -> None:
    tree = ast.parse((ROOT / "run.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_an_old_python_is_told_what_to_do() -> None:
    with pytest.raises(run.Stop, match=r"needs Python 3\.10 or newer, this is 3\.8\.10 .*install Python"):
        run.check_python((3, 8, 10), "run.py demo")


def test_an_old_python_is_told_of_a_newer_one() -> None:
    with pytest.raises(run.Stop, match=r"this machine has one, run: python3\.12 run\.py demo"):
        run.check_python((3, 8, 10), "run.py demo", "python3.12")


@pytest.mark.parametrize(
    ("line", "met"),
    [
        ("pytest", True),
        ("pytest>=1.0", True),
        ("pytest>=9999", False),
        ("PyTest==0.1", False),
        ("pytest~=1.0", True),
        ("no-such-package", False),
        ("no-such-package; python_version<'3.0'", True),
        ("no-such-package; python_version>='3.0'", False),
    ],
)
def test_a_requirement_line_is_compared_with_what_is_installed(line: str, met: bool) -> None:
    assert run.is_met(line) is met


def test_a_python_that_has_everything_is_used_without_a_venv(checkout: Path) -> None:
    (checkout / "requirements.txt").write_text("pytest>=1.0\n")
    assert run.prepare("demo") == sys.executable
    assert not run.VENV.exists()


def test_a_second_call_installs_nothing(venv: Path, pip: list[list[str]]) -> None:
    assert run.prepare("demo") == run.prepare("demo") == str(venv)
    assert pip == [["no-such-package>=1.0"]]


def test_changed_requirements_are_installed_again(checkout: Path, venv: Path, pip: list[list[str]]) -> None:
    run.prepare("demo")
    (checkout / "constraints.txt").write_text("no-such-package==1.1\n")
    run.prepare("demo")
    assert len(pip) == 2


def test_a_venv_made_by_hand_is_used_as_it_is(checkout: Path, venv: Path, pip: list[list[str]]) -> None:
    run.install(str(venv), "demo", ["pytest>=1.0"])
    assert pip == []


def test_a_failed_installation_is_tried_again(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(python: str, requirements: list[str]) -> None:
        raise run.Stop("no network")

    monkeypatch.setattr(run, "pip_install", fail)
    for _ in range(2):
        with pytest.raises(run.Stop, match="no network"):
            run.prepare("demo")


def test_a_full_disk_is_noticed_before_anything_is_made(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.shutil, "disk_usage", disk(0.5e9))
    with pytest.raises(run.Stop, match=r"not enough disk space .* GB needed, 0\.5 GB free .*make room"):
        run.prepare("demo")
    assert not run.VENV.exists()


def test_a_folder_that_is_no_venv_is_left_alone(checkout: Path) -> None:
    run.VENV.mkdir()
    (run.VENV / "diary.txt").touch()
    with pytest.raises(run.Stop, match="is not a virtual environment"):
        run.prepare("demo")
    assert (run.VENV / "diary.txt").exists()


@pytest.mark.parametrize(
    ("complaints", "remedy"),
    [
        (NO_NETWORK, "package index cannot be reached; check the network .*HTTPS_PROXY"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "GB are needed",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied", "its owner"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "the index serves another"),
    ],
    ids=["no network", "disk full", "no permission", "another file"],
)
def test_what_pip_complains_of_becomes_a_remedy(checkout: Path, complaints: str, remedy: str) -> None:
    assert re.search(remedy, run.explain(complaints) or "")


def test_pip_without_a_network_ends_in_one_clear_line(
    checkout: Path, venv: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = f"import sys\nif 'install' in sys.argv: sys.exit(sys.stderr.write({NO_NETWORK!r}) and 1)\n"
    (checkout / "fake_pip.py").write_text(body)
    venv.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{checkout}/fake_pip.py" "$@"\n')
    with pytest.raises(run.Stop, match="package index cannot be reached"):
        run.pip_install(str(venv), ["torch>=2.4"])
    assert "NewConnectionError" in capfd.readouterr().err


def test_a_package_that_is_not_the_tested_one_is_not_installed(
    checkout: Path, venv: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With pip itself, and an index that serves another file of the same name and version."""
    wheel = checkout / "wheels" / "letstalk_probe-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("letstalk_probe.py", "")
        for name, text in (
            ("METADATA", "Metadata-Version: 2.1\nName: letstalk-probe\nVersion: 1.0\n"),
            ("RECORD", ""),
        ):
            archive.writestr(f"letstalk_probe-1.0.dist-info/{name}", text)
        archive.writestr("letstalk_probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(wheel.parent)), ("TARGET", str(checkout / "to"))):
        monkeypatch.setenv(f"PIP_{name}", value)
    good = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for digest in ("0" * 64, good):
        (checkout / "hashes.txt").write_text(f"letstalk-probe==1.0 --hash=sha256:{digest}\n")
        if digest == good:
            run.pip_install(str(venv), ["letstalk-probe>=0.5"])
        else:
            with pytest.raises(run.Stop, match="not the file that LetsTalk was tested with"):
                run.pip_install(str(venv), ["letstalk-probe>=0.5"])
        assert (checkout / "to" / "letstalk_probe.py").exists() == (digest == good)


def test_packages_that_are_the_same_for_all_systems_have_hashes_of_the_tested_version() -> None:
    tested = run.read_requirements(ROOT / "constraints.txt")
    hashed = run.read_requirements(ROOT / "hashes.txt")
    assert {line.partition(" --hash")[0] for line in hashed} <= {re.sub(r";\s*", "; ", line) for line in tested}
    assert {line.partition("==")[0] for line in hashed} >= {"einops", "transformers", "kornia", "accelerate"}
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}$", line) for line in hashed)
    asked = run.read_hashes(["torch>=2.4", "Einops>=0.7", "kornia"])
    assert {line.partition("==")[0] for line in asked} == {"einops", "kornia"}


def test_what_is_optional_may_fail(
    venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(python: str, name: str, requirements: list[str]) -> None:
        raise run.Stop("no network")

    monkeypatch.setattr(run, "install", fail)
    run.try_install(str(venv), "espeak-ng", [run.ESPEAK], "tests that let espeak-ng speak")
    assert "no network; going on without tests that let espeak-ng speak" in capsys.readouterr().out


def test_comfyui_that_cannot_be_fetched_is_not_tried_again_at_once(
    venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def git(command: list[str], **options: object) -> None:
        calls.append(command)
        raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(run, "comfyui_cache", lambda: tmp_path / "cache" / "ComfyUI")
    monkeypatch.setattr(run.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(run.subprocess, "run", git)
    assert run.fetch_comfyui() is None
    assert run.fetch_comfyui() is None
    assert len(calls) == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wrong_comfyui_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(run.Stop, match="COMFYUI_PATH=.* is not a ComfyUI folder"):
        run.find_comfyui()


def test_help_and_wrong_commands_need_nothing_installed(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--help"]) == 0
    assert run.main(["dmeo"]) == 2
    output = capsys.readouterr().out
    assert "python3 run.py demo" in output
    assert "unknown command 'dmeo'; known are demo and test" in output


def test_a_checkout_without_the_demo_model_says_so(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["demo"]) == 2
    assert "is not complete; clone the repository again" in capsys.readouterr().out


def test_the_demo_runs_generate_and_says_where_the_video_is(
    checkout: Path, venv: Path, pip: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    assets = checkout / "letstalk_core" / "demo"
    for name in ("dit.safetensors", "portraits/eva.jpg", "portraits/ada.png", "speech/hello.wav"):
        (assets / name).parent.mkdir(parents=True, exist_ok=True)
        (assets / name).touch()
    venv.write_text('#!/bin/sh\necho "$@"\n')
    assert run.main(["demo", "--steps", "4"]) == 0
    output = capfd.readouterr().out
    assert "letstalk_core.cli.__main__ generate" in output
    for portrait, name in (("eva.jpg", "demo"), ("ada.png", "demo_drawn")):
        (command,) = (line for line in output.splitlines() if portrait in line)
        assert f"--contact-sheet {checkout / 'out' / name}.png" in command and command.endswith("--steps 4")
        assert f"the video is {checkout / 'out' / name}.mp4" in output


def test_a_demo_that_fails_stops_there(checkout: Path, venv: Path, capfd: pytest.CaptureFixture[str]) -> None:
    test_the_demo_runs_generate_and_says_where_the_video_is(checkout, venv, [], capfd)
    venv.write_text('#!/bin/sh\necho "$@"\ncase "$*" in *generate*) exit 3;; esac\n')
    assert run.main(["demo"]) == 3
    output = capfd.readouterr().out
    assert "eva.jpg" in output and "ada.png" not in output and "the video is" not in output


def test_options_of_test_reach_pytest(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "requirements.txt").write_text("pytest>=1.0\n")
    (checkout / "test_one.py").write_text("def test_kept(): pass\n\ndef test_dropped(): assert False\n")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert run.main(["test", "-q", "-p", "no:cacheprovider", "-k", "kept"]) == 0


def test_looking_for_packages_imports_none_of_them() -> None:
    code = (
        "import run, sys; run.missing(run.read_requirements(run.ROOT / 'requirements.txt'));"
        " print([name for name in ('numpy', 'torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
