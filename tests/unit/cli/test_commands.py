"""What a command must not write over, names and values that cannot work, and readers that go away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from letstalk_core.cli import info
from letstalk_core.cli import run_generate as generate
from letstalk_core.cli.__main__ import COMMANDS, RESEARCH_COMMANDS, build_parser, main
from letstalk_core.cli.progress import ProgressLine
from letstalk_core.generate.progress import Progress
from letstalk_core.generate.work_folder import RUN_FILE

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a portrait under two names, a recording, and a model of one file."""
    monkeypatch.chdir(tmp_path)
    for name in ("face.png", "speech.wav", "speech.mp4", "frames/frame_000003.png", "model/dit.safetensors"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("precious")
    Path("alias.png").symlink_to("face.png")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and all(word in error for word in words), error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-o v.mp4 --contact-sheet face.png", "is the portrait, and cannot be the contact sheet too"),
        ("-o v.mp4 --drift-plot ./alias.png", "is the portrait"),
        ("-o v.mp4 --contact-sheet model/dit.safetensors", "dit.safetensors of the model"),
        ("-o v.mp4 --contact-sheet a.png --drift-plot sub/../a.png", "is the contact sheet"),
        ("--png frames", "the portrait has the name of a frame"),
        ("-o v.mp4 --png new --contact-sheet frames/../new/frame_000001.png", "name of a frame"),
        ("-o v.mp4 --png v.mp4.work", "in the work folder"),
        ("-o v.mp4 --png v.mp4.work/frames", "in the work folder"),
        ("-o v.mp4 --contact-sheet v.mp4.work/a.png", "in the work folder"),
        ("-o speech.mp4", "is the recording, and cannot be the video too"),
    ],
)
def test_inputs_and_results_are_not_written_over_even_with_overwrite(
    options: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sub").mkdir()
    Path("new").mkdir()
    Path("v.mp4.work").mkdir()
    portrait = "frames/frame_000003.png" if options.startswith("--png") else "face.png"
    sound = "speech.mp4" if "speech" in options else "speech.wav"
    assert main(["generate", portrait, sound, "--model", "model", "--overwrite", *options.split()]) == 2
    refused(capsys, words)
    assert Path("face.png").read_text() == Path("frames/frame_000003.png").read_text() == "precious"


def test_restart_deletes_the_work_and_not_the_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = Path("v.mp4.work")
    work.mkdir()
    (work / RUN_FILE).write_text(json.dumps({"format": 1, "run": {}}))
    Path("v.mp4").write_text("finished")
    assert main(["generate", "face.png", "speech.wav", "-o", "v.mp4", "--restart"]) == 2
    refused(capsys, "v.mp4: exists already; add --overwrite")
    assert Path("v.mp4").read_text() == "finished" and (work / RUN_FILE).exists()


@pytest.mark.parametrize(
    "name", ["", ".", "/", "..", "a" * 252 + ".mp4", "b" * 249 + ".mp4", "c/" * 2500 + "v.mp4"]
)
def test_impossible_names_are_refused_at_once(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["-o", name], ["-o", "v.mp4", "--contact-sheet", name]):
        if options[-1].startswith("b") and len(options) == 4:
            continue  # it is the name of the work folder that is too long
        assert main(["generate", "face.png", "speech.wav", *options]) == 2
        refused(capsys)
    assert not list(folder.glob("*.work"))


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its permissions say: root may do all, and some file systems nothing."""
    monkeypatch.setattr("letstalk_core.cli.output.new_temporary", _read_only)
    for options in ("-o v.mp4", "--png frames2", "-o v.mp4 --overwrite"):
        assert main(["generate", "face.png", "speech.wav", *options.split()]) == 2
        refused(capsys, "is not writable (Read-only file system)")


def _read_only(path: Path) -> Path:
    raise OSError(30, "Read-only file system", str(path))


def test_without_a_folder_for_temporary_files_that_is_what_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(folder / "none")])
    assert main(["generate", "face.png", "speech.wav", "-o", "v.mp4"]) == 2
    refused(capsys, "temporary files", "TMPDIR")


@pytest.mark.parametrize(
    ("allocate", "words"),
    [
        (lambda: torch.empty(2**50), "memory is full: 4503599.6 GB more could not be had"),
        (lambda: numpy.empty(2**50), "memory is full: 8.00 PiB more could not be had"),
        (lambda: bytes(2**62), "memory is full: what is needed could not be had"),
    ],
)
def test_a_full_memory_is_told_with_its_amount(
    allocate: Callable[[], object], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "_work_folder", lambda args: allocate())
    assert main(["generate", "face.png", "speech.wav", "-o", "v.mp4"]) == 2
    refused(capsys, words)


class Gone:
    """A terminal whose other end has closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    flush = None


def test_progress_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ProgressLine(Gone())  # type: ignore[arg-type]
    line(Progress(clip=1, clips=2, step=0, steps=1, frames=4, total_frames=8))
    line(Progress(clip=2, clips=2, step=0, steps=1, frames=8, total_frames=8))
    line.end()
    monkeypatch.setattr(sys, "stderr", Gone())
    assert main(["info", "missing.mp4"]) == 2


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="shells there cannot close streams")
def test_a_program_started_without_streams_does_not_write_messages_into_its_files(tmp_path: Path) -> None:
    program = (
        "import os, sys; from letstalk_core.cli.__main__ import main; main(['info', 'missing.mp4'])\n"
        "file = open(sys.argv[1], 'w')\nos.write(2, b'a warning')\nfile.write(str(file.fileno() > 2))"
    )
    command = f'exec "{sys.executable}" -c "$PROGRAM" "{tmp_path / "video"}" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", command], cwd=ROOT, env={**os.environ, "PROGRAM": program}, check=True)
    assert (tmp_path / "video").read_text() == "True"


def test_info_quotes_what_a_file_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    forged = 'x\ncontent_credentials:\n  signer: "verified"\r\x1b[2J\u202e'
    found: dict[str, Any] = {
        "file": "a\nb.mp4",
        "type": "media",
        "streams": [{"codec": forged}],
        "metadata": {"comment": forged, f"k{forged}": {"nested": forged}, "list": [forged, 'a", "b'], "n": 3},
    }
    monkeypatch.setattr(info, "describe", lambda path: found)
    assert main(["info", "a.mp4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["file: a\\nb.mp4", "type: media"] and "  n: 3" in lines
    assert [line for line in lines if not line.startswith(" ")] == [*lines[:2], "streams 0:", "metadata:"]
    assert all(line.isprintable() for line in lines)
    assert '  comment: "x\\ncontent_credentials:\\n  signer: \\"verified\\"\\r\\x1b[2J\\u202e"' in lines
    assert any(line.endswith('"a\\", \\"b"') for line in lines)


def test_errors_reach_the_terminal_without_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "\x1b[2Jmissing.mp4"]) == 2
    refused(capsys, "\\x1b[2Jmissing.mp4: no such file")


# values of options that are refused before any work is done, each by its name

DRAW, ENCODE = "synthesize folder", "encode folder --autoencoder a.safetensors --audio-encoder b.safetensors"
OF_BOTH = [
    ("--stride 0", "stride=0 must be at least 1"),
    ("--stride 2 --first 2", "first=2 must be in 0..1"),
    ("--first -1", "first=-1 must be in 0..0"),
    ("--threads 0", "threads=0 must be at least 1"),
    ("--device abacus", "device 'abacus' cannot be used"),
]
REFUSED = [
    *((f"{command} {options}", words) for command in (DRAW, ENCODE) for options, words in OF_BOTH),
    (f"{DRAW} --clips 0", "clips=0 must be at least 1"),
    (f"{DRAW} --frames 0", "frames=0 must be at least 1"),
    (f"{DRAW} --clips 1 --engines siri", "engine 'siri' must be one of ('flite', 'festival')"),
    (f"{DRAW} --clips 1 --recordings nowhere", "nowhere/metadata.csv: cannot be read"),
    (f"{ENCODE} --batch 0", "batch=0"),
]


@pytest.mark.parametrize(("command", "words"), REFUSED)
def test_values_that_cannot_work_are_refused(
    command: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("command", [*COMMANDS, *RESEARCH_COMMANDS])
def test_every_command_is_there_and_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([command, "--help"])
    assert stop.value.code == 0
    assert f"letstalk {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", RESEARCH_COMMANDS)
def test_a_copy_without_research_says_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "letstalk_research"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "letstalk_research", None)
    assert main([command, "--any", "option", "--help"]) == 2
    assert capsys.readouterr().err == (
        f"error: `letstalk {command}` needs the package letstalk_research, which is not in this copy;"
        " pip install 'letstalk-portrait[train]'\n"
    )
