"""Videos that are signed, and videos that say which of their seconds were regenerated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from letstalk_core.cli.__main__ import main
from letstalk_core.cli.info import describe
from letstalk_core.errors import OutputError

from .command import Cli, stop_after, video_frames

SIGN = ("--sign", "chain.pem", "--sign-key", "signer.key", "--keep-work", "--quiet")


class Signer:
    """Stands for c2pa: notes what it is given, and marks the video or, where `works` is off, fails."""

    def __init__(self, video: Path) -> None:
        self.video, self.works = video, True
        self.seen: list[dict[str, Any]] = []

    def __call__(self, certificate: Path, key: Path) -> Signer:
        assert (certificate.name, key.name) == ("chain.pem", "signer.key")
        return self

    def sign(self, path: Path, details: dict[str, Any], title: str | None = None) -> None:
        there = self.video.read_bytes() if self.video.exists() else None
        self.seen.append({**details, "frames": video_frames(path), "title": title, "there": there})
        if not self.works:
            raise OutputError(f"{path}: cannot be signed")
        with path.open("ab") as file:
            file.write(b"\0\0\0\x0efreesigned")  # a box that players skip


@pytest.fixture
def signer(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Signer:
    made = Signer(cli.out / "v.mp4")
    monkeypatch.setattr("letstalk_core.cli.results.ContentSigner", made)
    return made


def test_a_video_is_signed_when_it_is_joined_and_again_after_a_retake(
    cli: Cli, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = cli.make_wav(1.0)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        assert cli(wav, *SIGN) == 130
    assert cli(wav, *SIGN) == 0
    plot = cli.out / "d.png"
    assert cli(wav, *SIGN, "--retake", "0-0.5", "--drift-plot", str(plot)) == 0
    assert [signed["frames"] for signed in signer.seen] == [12, 25, 25] and plot.is_file()
    assert {(signed["title"], signed["settings"]["steps"]) for signed in signer.seen} == {("v.mp4", 1)}


def test_no_video_has_its_name_before_it_is_signed(cli: Cli, signer: Signer) -> None:
    wav, signer.works = cli.make_wav(1.0), False
    assert cli(wav, *SIGN) == 2
    cli.error("cannot be signed")
    assert signer.seen[-1]["there"] is None and cli.left() == ["v.mp4.work"]
    signer.works = True
    assert cli(wav, *SIGN) == 0
    old = (cli.out / "v.mp4").read_bytes()
    assert signer.seen[-1]["there"] is None and old.endswith(b"signed") and video_frames(cli.out / "v.mp4") == 25
    assert "retakes" not in signer.seen[-1]
    signer.works = False
    assert cli(wav, *SIGN, "--retake", "0-0.5") == 2
    assert signer.seen[-1]["there"] == old == (cli.out / "v.mp4").read_bytes()
    signer.works = True
    assert cli(wav, *SIGN, "--retake", "0-0.5") == 0
    new = (cli.out / "v.mp4").read_bytes()
    assert signer.seen[-1]["there"] == old and new != old and new.endswith(b"signed")
    assert signer.seen[-1]["retakes"] == [{"seconds": [0.0, 1.0], "seed": 1}]


def test_a_video_tells_which_seconds_were_made_anew(cli: Cli) -> None:

    def told(path: Path) -> Any:
        return describe(path)["metadata"]["letstalk"].get("retakes")

    wav, again = cli.make_wav(5.0), ("--keep-work", "--quiet", "--overwrite")
    assert cli(wav, *again) == 0
    assert told(cli.out / "v.mp4") is None
    for seconds, seed in (("4.5-5", "3"), ("0.3-2", "4"), ("0.3-2", "4")):  # the same once more is no other take
        command = ("--retake", seconds, "--retake-seed", seed, *again)
        assert cli(wav, *command) == 0
    takes = [{"seconds": [3.84, 5.0], "seed": 3}, {"seconds": [0.0, 3.84], "seed": 4}]
    assert told(cli.out / "v.mp4") == takes
    assert main(["info", str(cli.out / "v.mp4")]) == 0
    assert "retakes 1:\n      seconds: 0.0, 3.84\n      seed: 4" in cli.capsys.readouterr().out
    (cli.out / "v.mp4").unlink()  # joined again from the work folder
    assert cli(wav, *again, "--png", str(cli.out / "f")) == 0
    assert told(cli.out / "v.mp4") == takes == told(cli.out / "f" / "frame_000000.png")
