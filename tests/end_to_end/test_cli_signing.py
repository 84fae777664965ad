"""Videos that are signed, and videos that say which of their seconds were regenerated."""

from pathlib import Path
from typing import Any

import pytest

from letstalk_core.cli.__main__ import main

from .command import Cli, stop_after, video_frames


def test_a_video_is_signed_when_it_is_joined_and_again_after_a_retake(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:

    signed: list[tuple[int, int]] = []

    class Signer:
        def __init__(self, certificate: Path, key: Path) -> None:
            assert (certificate.name, key.name) == ("chain.pem", "signer.key")

        def sign(self, path: Path, details: dict[str, Any], title: str | None = None) -> None:
            assert title == "v.mp4"
            signed.append((video_frames(path), details["settings"]["steps"]))

    monkeypatch.setattr("letstalk_core.cli.results.ContentSigner", Signer)
    wav, sign = cli.make_wav(1.0), ("--sign", "chain.pem", "--sign-key", "signer.key", "--keep-work")
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        assert cli(wav, *sign) == 130
    assert cli(wav, *sign) == 0
    assert signed == [(12, 1), (25, 1)]
    plot = cli.out / "d.png"
    assert cli(wav, *sign, "--retake", "0-0.5", "--drift-plot", str(plot)) == 0
    assert signed[2:] == [(25, 1)] and plot.is_file()


def test_no_video_has_its_name_before_it_is_signed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from letstalk_core.errors import OutputError

    state: dict[str, Any] = {"works": False}
    details_seen: list[dict[str, Any]] = []

    class Signer:
        def __init__(self, certificate: Path, key: Path) -> None:
            pass

        def sign(self, path: Path, details: dict[str, Any], title: str | None = None) -> None:
            state["there"] = (cli.out / "v.mp4").read_bytes() if (cli.out / "v.mp4").exists() else None
            if not state["works"]:
                raise OutputError(f"{path}: cannot be signed")
            details_seen.append(details)
            with path.open("ab") as file:
                file.write(b"\0\0\0\x0efreesigned")  # a box that players skip

    monkeypatch.setattr("letstalk_core.cli.results.ContentSigner", Signer)
    wav, sign = cli.make_wav(1.0), ("--sign", "chain.pem", "--sign-key", "signer.key", "--keep-work", "--quiet")
    assert cli(wav, *sign) == 2
    cli.error("cannot be signed")
    assert state["there"] is None and cli.left() == ["v.mp4.work"]
    state["works"] = True
    assert cli(wav, *sign) == 0
    old = (cli.out / "v.mp4").read_bytes()
    assert state["there"] is None and old.endswith(b"signed") and video_frames(cli.out / "v.mp4") == 25
    state["works"] = False
    assert cli(wav, *sign, "--retake", "0-0.5") == 2
    assert state["there"] == old == (cli.out / "v.mp4").read_bytes()
    state["works"] = True
    assert cli(wav, *sign, "--retake", "0-0.5") == 0
    new = (cli.out / "v.mp4").read_bytes()
    assert state["there"] == old and new != old and new.endswith(b"signed")
    assert "retakes" not in details_seen[0]
    assert details_seen[1]["retakes"] == [{"seconds": [0.0, 1.0], "seed": 1}]


def test_a_video_tells_which_seconds_were_made_anew(cli: Cli) -> None:
    from letstalk_core.cli.info import describe

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
