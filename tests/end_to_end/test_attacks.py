"""The world changes while a run lasts, or between a kill and the next try."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from letstalk_core.cli.__main__ import main
from letstalk_core.errors import MediaError, OutputError
from letstalk_core.files import new_temporary
from letstalk_core.generate.work_folder import RUN_FILE
from letstalk_core.media.audio.decode import AudioSource
from letstalk_core.media.video.writer import PngSequenceWriter

from .command import at_clip
from .media import read_frames

Wav = Callable[..., Path]


@pytest.fixture
def command(portrait_png: Path, make_wav: Wav, tiny_bundle: Path, tmp_path: Path) -> list[str]:
    """A run of five segments into v.mp4 of the same folder as its inputs."""
    wav, out = make_wav(9.0), tmp_path / "v.mp4"
    fixed = ["--model", str(tiny_bundle), "--steps", "1", "--device", "cpu", "--no-crop"]
    return ["generate", str(portrait_png), str(wav), "-o", str(out), *fixed, "--quiet", "--keep-work"]


def killed() -> None:
    raise RuntimeError("killed")


def test_a_recording_that_is_replaced_on_the_way_does_not_get_into_the_video(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wav = Path(command[2])
    old = wav.read_bytes()
    at_clip(20, lambda: wav.write_bytes(old[:44] + old[44:][::-1]), monkeypatch)
    assert main(command) == 2
    assert "speech.wav: was changed or replaced" in capsys.readouterr().err
    assert not (tmp_path / "v.mp4").exists()
    wav.write_bytes(old)
    assert main(command) == 0
    continued = read_frames(tmp_path / "v.mp4")
    assert main([*command, "--restart", "--overwrite"]) == 0
    again = read_frames(tmp_path / "v.mp4")
    assert np.array_equal(again, continued) and len(continued) == 225


def test_nothing_is_sampled_from_another_recording(make_wav: Wav) -> None:
    """Sound is encoded as it is needed: what comes after the change must not get into the work folder."""
    wav = make_wav(5.0)
    old = wav.read_bytes()
    source = AudioSource(wav)
    source.pin()
    blocks = iter(source)
    next(blocks)
    wav.touch()
    next(blocks)  # the same contents
    wav.write_bytes(old[:44] + old[44:][::-1])
    with pytest.raises(MediaError, match="was changed or replaced"):
        list(blocks)


def test_flipped_bytes_in_any_file_of_a_work_folder_change_no_frame(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, out = tmp_path / "v.mp4.work", tmp_path / "v.mp4"
    assert main(command) == 0
    expected = read_frames(out)
    names = sorted(path.name for path in work.iterdir() if path.name != "lock")
    kinds = {re.sub(r"\d{6}", "*", name) for name in names}
    assert kinds == {"video-*.mp4", "clip-*.safetensors", "bank-*.safetensors", "drift-*.json", RUN_FILE}
    for kind in sorted(kinds - {RUN_FILE}) + [RUN_FILE]:
        for path in work.glob(kind):
            path.write_bytes(with_flipped_bytes(path.read_bytes()))
        if kind != "video-*.mp4":  # something is to be made, of the clips that are there or of new ones
            for path in sorted(work.glob("video-*"))[-2:] + sorted(work.glob("clip-*"))[-14:]:
                path.unlink()
        code = main(command)
        assert code == (2 if kind == RUN_FILE else 0), (kind, capsys.readouterr().err)
        assert np.array_equal(read_frames(out), expected), kind


def with_flipped_bytes(data: bytes) -> bytes:
    """Some in the last two thirds: headers, which tell of themselves that they are damaged, stay."""
    damaged = bytearray(data)
    for place in range(len(data) // 3, len(data), max(1, len(data) // 7)):
        damaged[place] ^= 0x55
    return bytes(damaged)


def test_latents_go_with_a_contact_sheet_as_without(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    work = tmp_path / "v.mp4.work"
    at_clip(48, lambda: left.append(len(list(work.glob("clip-*")))), monkeypatch)
    assert main([*command[:-1], "--contact-sheet", str(tmp_path / "s.png")]) == 0
    assert left[0] < 48 and (tmp_path / "s.png").is_file()


def test_a_work_folder_gives_no_right_over_files_that_its_run_did_not_make(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_clip(20, killed, monkeypatch)
    assert main(command) == 1
    recorded = json.loads((tmp_path / "v.mp4.work" / RUN_FILE).read_text())
    assert recorded["outputs"] == [str(tmp_path / "v.mp4")]
    (tmp_path / "mine.png").write_text("precious")
    capsys.readouterr()
    assert main([*command, "--contact-sheet", str(tmp_path / "mine.png")]) == 2
    assert "mine.png: exists already; add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine.png").read_text() == "precious"
    (tmp_path / "v.mp4").write_text("what an interrupted run of this command left")
    assert main(command) == 0


def test_frames_of_a_killed_run_leave_no_halves_and_a_folder_has_one_writer(tmp_path: Path) -> None:
    half, other = new_temporary(tmp_path / "frame_000007.png"), tmp_path / ".frame_mine.png"
    other.touch()
    writer = PngSequenceWriter(tmp_path)
    assert not half.exists() and other.exists()
    with pytest.raises(OutputError, match="writes frames to it"):
        PngSequenceWriter(tmp_path)
    writer.write(torch.zeros(1, 16, 16, 3, dtype=torch.uint8))
    writer.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".frame_mine.png", "frame_000000.png"]
    PngSequenceWriter(tmp_path).abort()
