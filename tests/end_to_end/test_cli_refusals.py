"""Bad files, settings and disks: one line that names them, exit code 2, and nothing left."""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from letstalk_research.data.synthetic.speech import write_wav

from .command import Cli


def _nan_wav(path: Path) -> None:
    samples = struct.pack("<1600f", *[0.1] * 800, *[float("nan")] * 800)
    fmt = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def _silent_video(path: Path) -> None:
    from letstalk_core.media.video.writer import VideoWriter

    with VideoWriter(path.with_suffix(".mp4"), 25, (16, 16)) as writer:
        writer.write(torch.zeros(3, 16, 16, 3, dtype=torch.uint8))
    path.with_suffix(".mp4").replace(path)


BAD_SOUND: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a sound"),
    "folder": lambda path: path.mkdir(),
    "no-audio-stream": _silent_video,
    "nan": _nan_wav,
    "no-samples": lambda path: write_wav(path, np.zeros(0, np.float32)),
    "one-sample": lambda path: write_wav(path, np.ones(1, np.float32)),
}


@pytest.mark.parametrize("case", BAD_SOUND)
def test_bad_sound_gives_one_line_and_leaves_nothing(cli: Cli, case: str, tmp_path: Path) -> None:
    audio = tmp_path / "bad-sound.wav"
    BAD_SOUND[case](audio)
    assert cli(audio, "--contact-sheet", str(cli.out / "s.png")) == 2
    cli.error("bad-sound")
    assert cli.left() == []


def _picture(path: Path, mode: str, size: tuple[int, int] = (40, 40), **options: Any) -> None:
    from PIL import Image

    Image.new(mode, size, 90 if mode in ("L", "P", "I;16") else None).save(path, **options)


BAD_PICTURES: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a picture"),
    "folder": lambda path: path.mkdir(),
    "cut-short": lambda path: (_picture(path, "RGB", (300, 300)), path.write_bytes(path.read_bytes()[:200])),
    "1x1": lambda path: _picture(path, "RGB", (1, 1)),
    "20000-wide": lambda path: _picture(path, "RGB", (20_000, 20)),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_picture_gives_one_line_and_leaves_nothing(cli: Cli, case: str, tmp_path: Path) -> None:
    portrait = tmp_path / "bad-picture.png"
    BAD_PICTURES[case](portrait)
    assert cli(0.2, portrait=portrait) == 2
    cli.error("bad-picture")
    assert cli.left() == []


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "I;16"])
def test_pictures_of_every_common_kind_are_taken(cli: Cli, mode: str, tmp_path: Path) -> None:
    _picture(tmp_path / "picture.png", mode)
    assert cli(0.1, portrait=tmp_path / "picture.png") == 0


def _replace(folder: Path, name: str, content: bytes) -> None:
    (folder / name).unlink()
    (folder / name).write_bytes(content)


def _foreign(folder: Path) -> None:
    from safetensors.torch import save

    _replace(folder, "dit.safetensors", save({"x": torch.zeros(3)}))


def _misfit(folder: Path) -> None:
    """The config in the header describes another network than the tensors."""
    content = (folder / "dit.safetensors").read_bytes()
    assert content.count(b'\\"depth\\": 1') == 1
    _replace(folder, "dit.safetensors", content.replace(b'\\"depth\\": 1', b'\\"depth\\": 2'))


BAD_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda f: (f / "dit.safetensors").unlink(), "lacks dit.safetensors"),
    "empty": (lambda f: _replace(f, "dit.safetensors", b""), "dit.safetensors"),
    "cut-short": (
        lambda f: _replace(f, "dit.safetensors", (f / "dit.safetensors").read_bytes()[:-100]),
        "cut short",
    ),
    "text": (lambda f: _replace(f, "dit.safetensors", b"<html>not found</html>"), "dit.safetensors"),
    "foreign": (_foreign, "no LetsTalk config"),
    "another-kind": (
        lambda f: _replace(f, "dit.safetensors", (f / "autoencoder.safetensors").read_bytes()),
        "not a model of kind",
    ),
    "misfit": (_misfit, "tensors missing"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_gives_one_line_and_leaves_nothing(cli: Cli, case: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in cli.bundle.iterdir():
        (folder / file.name).symlink_to(file)
    spoil, words = BAD_MODELS[case]
    spoil(folder)
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


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs permissions that bind")
def test_a_folder_without_permission_is_refused(cli: Cli) -> None:
    cli.out.chmod(0o500)
    assert cli(0.2) == 2
    cli.error("not writable")


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
