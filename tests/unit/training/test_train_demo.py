"""`scripts/train_demo.py`: its settings fit the recipes, and a stage that fails ends the job with its log."""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from letstalk_research.training.recipe import load_recipe
from tests.conftest import load_file

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "train_demo.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", sys.path[:])  # the script adds the project
    return load_file("train_demo", SCRIPT)


def arguments(tmp_path: Path, **changes: object) -> argparse.Namespace:
    values = {"work": tmp_path / "work", "out": tmp_path / "out", "minutes": 9.5, "share": 0.45, "clips": 4}
    values |= {"utterances": 24, "processes": 2, "device": "cpu", "seed": 21, "from_bundled": True}
    return argparse.Namespace(**{**values, "overrides": [], **changes})


@pytest.mark.parametrize("stage", ["autoencoder", "audio", "dit", "decoder"])
def test_settings_fit_the_recipes(script: ModuleType, tmp_path: Path, stage: str) -> None:
    job = script.Job(arguments(tmp_path, overrides=[f"{stage}:data.batch_size=3"]), time.monotonic())
    start = {"loop.init": tmp_path / "first.safetensors"} if stage == "decoder" else {}
    settings = job.settings(stage, {"loop.max_minutes": 1.5, "data.folder": job.data, **start})
    recipe = load_recipe(script.kind_of(stage), f"demo_{stage}", settings)
    assert recipe.data.batch_size == 3  # what the user sets counts last
    assert recipe.loop.max_minutes == 1.5 and recipe.loop.steps == 0  # time is the budget, not steps
    assert recipe.data.folder == str(job.data)
    bundled = script.BUNDLED / script.FILES[stage]
    assert Path(recipe.loop.init) == (tmp_path / "first.safetensors" if stage == "decoder" else bundled)


@pytest.mark.slow
def test_a_stage_that_fails_ends_the_job_and_the_waiting_for_clips(script: ModuleType, tmp_path: Path) -> None:
    job = script.Job(arguments(tmp_path), time.monotonic())
    (job.data / "manifest.jsonl").write_text("{}\n" * 5)
    job.wait_for_clips(5)  # they are there
    name = job.call("broken", "train", "dit", "--config", tmp_path / "missing.toml")
    with pytest.raises(script.Failure, match=r"broken ended with [1-9][\s\S]*missing\.toml"):
        job.wait([name])
    assert not job.running
    job.call("broken", "train", "dit", "--config", tmp_path / "missing.toml")
    with pytest.raises(script.Failure, match="broken ended"):
        job.wait_for_clips(6)


@pytest.mark.parametrize(
    ("text", "words"), [("dit:data.batch=3", "batch"), ("audio:data.batch_size=0", "batch_size=0")]
)
def test_a_wrong_change_is_refused_at_once(script: ModuleType, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(script.Failure, match=words):
        script.Job(arguments(tmp_path, overrides=[text]), time.monotonic()).plan()


def test_a_folder_with_trainings_is_refused(script: ModuleType, tmp_path: Path) -> None:
    job = script.Job(arguments(tmp_path), time.monotonic())
    job.plan()
    job.trained("dit").parent.mkdir()
    with pytest.raises(script.Failure, match=r"holds trainings of before \(dit\)"):
        job.plan()


def test_stopping_ends_what_runs(script: ModuleType, tmp_path: Path) -> None:
    job = script.Job(arguments(tmp_path), time.monotonic())
    job.running["sleeper"] = process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    job.stop()
    assert process.poll() is not None


def test_no_time_left_is_said(script: ModuleType, tmp_path: Path) -> None:
    job = script.Job(arguments(tmp_path, minutes=0.2), time.monotonic())
    with pytest.raises(script.Failure, match="no time is left for dit; give more --minutes than 0.2"):
        job.train("dit", 12.0, {})
    assert not job.running


STAGE = "needs STAGE:TABLE.KEY=VALUE"


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--processes 0", ""),
        ("--share 1.5", ""),
        ("--set data.batch_size=3", STAGE),
        ("--set denoiser:data.batch_size=3", STAGE),
    ],
)
def test_values_that_cannot_work_are_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, why: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_demo.py", "work", "--out", "out", *option.split()])
    with pytest.raises(SystemExit, match="2"):
        script.parse()
    error = capsys.readouterr().err
    assert option in error and why in error


def test_the_decoder_trained_last_is_kept(script: ModuleType, tmp_path: Path) -> None:
    job = script.Job(arguments(tmp_path), time.monotonic())
    for stage in script.FILES:
        job.trained(stage).parent.mkdir()
        job.trained(stage).write_text(stage)
    job.keep()
    assert {p.name: p.read_text() for p in (tmp_path / "out").iterdir()} == {
        "autoencoder.safetensors": "decoder",
        "audio_encoder.safetensors": "audio",
        "dit.safetensors": "dit",
    }
