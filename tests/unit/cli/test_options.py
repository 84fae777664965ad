"""Values of options that are refused before any work is done, each by its name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from letstalk_core.cli.__main__ import COMMANDS, RESEARCH_COMMANDS, build_parser, main

ENCODE = ["encode", "folder", "--autoencoder", "a.safetensors", "--audio-encoder", "b.safetensors"]


@pytest.mark.parametrize("command", [["synthesize", "folder"], ENCODE], ids=["synthesize", "encode"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stride", "0"], "stride=0 must be at least 1"),
        (["--stride", "2", "--first", "2"], "first=2 must be in 0..1"),
        (["--first", "-1"], "first=-1 must be in 0..0"),
        (["--threads", "0"], "threads=0 must be at least 1"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_values_that_cannot_work_are_refused(
    command: list[str],
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, *options]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["clips", "frames"])
def test_drawing_nothing_is_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synthesize", str(tmp_path), f"--{option}", "0"]) == 2
    assert f"{option}=0 must be at least 1" in capsys.readouterr().err


def test_encoding_no_frames_at_once_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ENCODE, "--batch", "0"]) == 2
    assert "batch=0" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--engines", "siri", "engine 'siri' must be one of ('flite', 'festival')"),
        ("--recordings", "nowhere", "nowhere/metadata.csv: cannot be read"),
    ],
)
def test_speech_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    assert main(["synthesize", str(tmp_path), "--clips", "1", option, value]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))
