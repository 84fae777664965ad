"""`letstalk evaluate` on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from letstalk_core.cli.__main__ import main

pytestmark = pytest.mark.usefixtures("espeak")


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


@pytest.mark.parametrize(
    "options",
    [
        *(["--clips", "0"], ["--quick"], ["--seconds", "0.1"], ["--steps", "0"], ["--threads", "0"]),
        *(
            ["--suite", "photo"],
            ["--suite", "real"],
            ["--videos", "films"],
            ["--suite", "demo", "--portraits", "x"],
        ),
    ],
)
def test_impossible_options_give_one_line(
    options: list[str], tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", str(tiny_bundle), "-o", str(tmp_path / "x"), "--device", "cpu"]
    assert main([*command, *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert not (tmp_path / "x").exists()
