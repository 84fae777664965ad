"""Bad files, settings and disks: one line that names them, exit code 2, and nothing left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .command import Cli


@pytest.mark.parametrize("kind", ["sound", "portrait"])
@pytest.mark.parametrize(
    "content", [None, b"", b"neither a sound nor a picture"], ids=["missing", "empty", "text"]
)
def test_a_bad_file_gives_one_line_and_leaves_nothing(
    cli: Cli, kind: str, content: bytes | None, tmp_path: Path
) -> None:
    """What else may be wrong with a file is tested where it is read."""
    path = tmp_path / "bad-file.png"
    if content is not None:
        path.write_bytes(content)
    sound, portrait = (path, cli.portrait) if kind == "sound" else (cli.make_wav(0.2), path)
    assert cli(sound, "--contact-sheet", str(cli.out / "s.png"), portrait=portrait) == 2
    cli.error("bad-file")
    assert cli.left() == []


def _misfit(content: bytes) -> bytes:
    """The config in the header describes another network than the tensors."""
    assert content.count(b'\\"depth\\": 1') == 1
    return content.replace(b'\\"depth\\": 1', b'\\"depth\\": 2')


BAD_MODELS: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "missing": (lambda content: None, "lacks dit.safetensors"),
    "cut-short": (lambda content: content[:-100], "cut short"),
    "text": (lambda content: b"<html>not found</html>", "dit.safetensors"),
    "misfit": (_misfit, "tensors missing"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_gives_one_line_and_leaves_nothing(cli: Cli, case: str, tmp_path: Path) -> None:
    spoil, words = BAD_MODELS[case]
    folder = shutil.copytree(cli.bundle, tmp_path / "model")
    content = spoil((folder / "dit.safetensors").read_bytes())
    (folder / "dit.safetensors").unlink()
    if content is not None:
        (folder / "dit.safetensors").write_bytes(content)
    assert cli(0.2, model=folder) == 2
    cli.error(words)
    assert cli.left() == []


IMPOSSIBLE = {
    "--steps 0": "steps=0",
    "--steps many": "--steps",
    "--solver magic": "magic",
    "--solver ddpm": "flow",
    "--fps 0": "fps=0",
    "--fps nan": "fps=nan",
    "--size 33": "33x33",
    "--size 0": "0x0",
    "--size wide": "wide",
    "--cfg-audio -1": "-1",
    "--cfg-audio nan": "guidance",
    "--cfg-audio 1.6:-1": "-1",
    "--cfg-portrait high": "high",
    "--memory-noise 2": "2",
    "--movement 2.5": "movement=2.5",
    "--shift 0": "shift",
    "--threads 0": "threads",
    "--device cuda:99": "cuda:99",
    "--device toaster": "toaster",
    "--model /nonexistent": "/nonexistent",
    "--sign chain.pem": "--sign-key KEY",
    "--no-such-option": "--no-such-option",
}


@pytest.mark.parametrize("options", IMPOSSIBLE)
def test_impossible_options_give_one_line_and_leave_nothing(cli: Cli, options: str) -> None:
    try:
        code = cli(0.2, *options.split())
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    assert code == 2
    cli.error(IMPOSSIBLE[options])
    assert cli.left() == []


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("missing/v.mp4", "does not exist"),
        ("v.avi", ".mp4"),
        ("folder.mp4", "is a folder"),
        ("file/v.mp4", "does not exist"),
    ],
)
def test_an_impossible_output_is_refused_before_any_work(cli: Cli, target: str, words: str) -> None:
    (cli.out / "folder.mp4").mkdir()
    (cli.out / "file").touch()
    assert cli(0.2, "-o", str(cli.out / target), video=False) == 2
    cli.error(words)
    assert cli.left() == ["file", "folder.mp4"]


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_disk_that_is_full_from_the_start_leaves_nothing(cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    import resource

    wav, before = cli.make_wav(1.0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        code = cli(wav, "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2 and cli.left() == []
