"""`letstalk evaluate` of a tiny random model, and of short films."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from letstalk_core.cli.__main__ import main
from letstalk_core.media.audio.decode import AudioSource
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.video.writer import VideoWriter
from letstalk_core.networks.load import DEMO_FOLDER
from letstalk_research.evaluation.paper.networks import IResNet


@pytest.mark.usefixtures("espeak")
def test_evaluate_writes_a_report_and_does_not_overwrite_it(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    command = ["evaluate", "--model", str(tiny_bundle), "-o", str(out), "--clips", "2", "--seconds", "0.4"]
    command += ["--steps", "1", "--device", "cpu", "--dtype", "float32"]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report == json.loads((out / "report.json").read_text())
    assert report["settings"]["steps"] == 1 and set(report["settings"]["models_sha256"])
    assert report["metrics"]["autoencoder PSNR: frame"]["count"] == 2
    assert "clip 2/2" in printed.err
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.usefixtures("espeak")
def test_the_demo_suite_runs_in_parts_and_goes_on_from_there(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    command = ["evaluate", "--suite", "demo", "--quick", "--model", str(tiny_bundle), "-o", str(out), "--json"]
    command += ["--steps", "1", "--device", "cpu", "--dtype", "float32", "--drift-minutes", "0.02"]
    assert main([*command, "--parts", "drift"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "report.json").read_text())
    assert not (out / "work" / "drift_0" / "work").exists()  # finished long videos leave no latents behind
    assert main([*command, "--parts", "speed,drift"]) == 0
    printed = capsys.readouterr()
    assert "drift clip 1/1: from an earlier run" in printed.err and "frames to generate" in printed.err
    rows = {row["name"]: row for row in json.loads(printed.out)["rows"]}
    assert rows["bundle: MB"]["met"] and rows["speed: frames per second"]["value"]["count"] == 3
    assert rows["drift: sharpness per minute"]["value"]["count"] > 0 and rows["lips: jaw"]["met"] is None
    assert main([*command, "--seed", "1"]) == 2
    assert "other settings" in capsys.readouterr().err


OF_SIZES = ["--clips 0", "--quick", "--seconds 0.1", "--steps 0", "--threads 0"]
OF_SUITES = ["--suite photo", "--suite real", "--videos films", "--suite demo --portraits x"]


@pytest.mark.parametrize("options", [*OF_SIZES, *OF_SUITES])
def test_impossible_options_give_one_line(
    options: str, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", str(tiny_bundle), "-o", str(tmp_path / "x"), "--device", "cpu"]
    assert main([*command, *options.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert not (tmp_path / "x").exists()


# videos beside their truth, of a bundled portrait


FRAMES, SIDE = 7, 192


def film(path: Path, sound: Path, *, light: int = 0, side: int = SIDE) -> None:
    """A portrait that moves a pixel a frame."""
    picture = load_portrait(DEMO_FOLDER / "portraits/eva.jpg")
    frames = resize(picture[:1024, :1024], (SIDE + FRAMES, SIDE + FRAMES))
    path.parent.mkdir(exist_ok=True)
    writer = VideoWriter(path, 25.0, (side, side), audio=AudioSource(sound))
    moved = torch.stack([frames[i : i + SIDE, :SIDE] for i in range(FRAMES)])
    writer.write(resize((moved.int() + light).clamp(0, 255).to(torch.uint8), (side, side)))
    writer.close()


@pytest.fixture
def folders(tmp_path: Path, make_wav: Callable[..., Path]) -> list[str]:
    sound = make_wav(0.3)
    film(tmp_path / "made/a.mp4", sound, light=9)
    film(tmp_path / "made/alone.mp4", sound)
    film(tmp_path / "truth/a.mp4", sound, side=2 * SIDE)
    return ["--videos", str(tmp_path / "made"), "--truth", str(tmp_path / "truth"), "-o", str(tmp_path / "out")]


def test_videos_are_compared_with_their_truth_and_missing_files_are_named(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(IResNet((1, 1, 1, 1), width=4, embedding=8).state_dict(), tmp_path / "backbone.pth")
    command = ["evaluate", *folders, "--arcface", str(tmp_path / "backbone.pth"), "--device", "cpu"]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report == json.loads((tmp_path / "out/report.json").read_text())
    assert "1 videos have no partner and are left out: alone" in printed.err
    rows = {row["name"]: row for row in report["rows"]}
    assert 25 < rows["PSNR"]["mean"] < 31 and 0.85 < rows["SSIM"]["mean"] < 1  # 9 levels are 29 dB
    assert rows["LMD, mouth"]["mean"] < 1 and rows["CSIM"]["mean"] > 0.9
    assert rows["CSIM"]["remark"].startswith("backbone.pth, sha256 ")
    assert rows["FID"]["count"] == 0
    assert "pt_inception-2015-12-05-6726825d.pth of pytorch-fid or torch-fidelity, sha256" in rows["FID"]["remark"]
    assert "--syncnet: syncnet_v2.model of syncnet_python, sha256 961e8696" in rows["Sync-C"]["remark"]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("drop", "add", "words"),
    [
        ("--videos", [], "--truth needs --videos"),
        ("--truth", ["--suite", "real", "--i3d", "x"], "--i3d belongs to --truth"),
        ("", ["--suite", "photo"], "no model runs"),
        ("", ["--syncnet", "missing.pth"], "missing.pth"),
    ],
)
def test_what_does_not_go_together_gives_one_line(
    drop: str, add: list[str], words: str, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [o for i in range(0, 6, 2) if folders[i] != drop for o in folders[i : i + 2]]
    assert main(["evaluate", *kept, *add]) == 2
    assert words in capsys.readouterr().err
