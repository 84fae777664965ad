"""Personalize starts the training program, shows where it stands, and loads what it made."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from comfy_api.latest import InputImpl, Types
from graph_setup import DEMO_FOLDER

PROGRAM = """
import json, shutil, signal, sys, time
from pathlib import Path
video, folder = Path(sys.argv[2]), Path(sys.argv[sys.argv.index("-o") + 1])
assert sys.argv[1] == "personalize" and video.stat().st_size > 1000 and "--json" in sys.argv
folder.mkdir(parents=True, exist_ok=True)
(folder / "asked.txt").write_text(" ".join(sys.argv[3:]))
if folder.name == "slow":
    (folder / "work").mkdir()
    signal.signal(signal.SIGTERM, lambda *_: ((folder / "work" / "state").touch(), sys.exit(143)))
    print(json.dumps({"stage": "training dit", "share": 0.5, "text": "1 minute"}), flush=True)
    time.sleep(60)
if folder.name == "bad":
    sys.exit("some warning\\nerror: person.mp4: gives 0 s to train on; give minutes of one person")
for share in (0.0, 0.5, 1.0):
    print(json.dumps({"stage": "training autoencoder", "share": share, "text": "7 minutes"}), flush=True)
print("not JSON", flush=True)
for name in ("autoencoder", "audio_encoder", "dit"):
    shutil.copy(Path(DEMO) / f"{name}.safetensors", folder)
shutil.copy(next((Path(DEMO) / "portraits").glob("ada*")), folder / "portrait.png")
(folder / "report").mkdir(exist_ok=True)
(folder / "report" / "report.md").write_text("lips 0.8")
"""


@pytest.fixture
def adapter(sub: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The adapter, whose program only pretends to train."""
    module = sub("nodes.adapters.personalize")
    program = tmp_path / "program.py"
    program.write_text(f"DEMO = {str(DEMO_FOLDER)!r}\n{PROGRAM}")
    monkeypatch.setattr(module, "command", lambda: ([sys.executable, str(program)], dict(os.environ)))
    yield module
    shutil.rmtree(base / "models" / "letstalk", ignore_errors=True)


@pytest.fixture
def video() -> Any:
    sound = {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 16000}
    parts = Types.VideoComponents(images=torch.rand(25, 64, 64, 3), audio=sound, frame_rate=Fraction(25))
    return InputImpl.VideoFromComponents(parts)


@pytest.fixture
def run(comfy_nodes: Any, adapter: Any) -> Any:
    def run(name: str, **inputs: Any) -> Any:
        node = comfy_nodes["LetsTalkPersonalize"]
        return node.execute(**{"name": name, "consent": True, "minutes": 5.0, "lora": False, **inputs}).args

    return run


def test_a_model_is_trained_kept_and_used_again(
    run: Any, video: Any, adapter: Any, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[tuple[int, int]] = []
    update = comfy.utils.ProgressBar.update_absolute

    def told(bar: Any, value: int, total: Any = None, preview: Any = None) -> None:
        bars.append((value, bar.total))
        update(bar, value, total, preview)

    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", told)
    model, vae, encoder, portrait, folder, report = run("eva", video=video)
    assert bars == [(100, 1000), (200, 1000), (300, 1000)]
    assert Path(folder) == base / "models" / "letstalk" / "eva"
    assert model.model.path.parent == vae.path.parent == Path(folder)
    assert encoder is not None and portrait.shape == (1, 256, 256, 3) and report == "lips 0.8"
    assert "--minutes 5.0" in (Path(folder) / "asked.txt").read_text()
    assert list(Path(folder).glob("source-*.mp4")) == []
    monkeypatch.setattr(adapter, "command", lambda: pytest.fail("trained again"))
    assert run("eva", consent=False)[5] == "lips 0.8"


def test_a_video_file_is_trained_on_where_there_is_no_model_folder_yet(
    run: Any, video: Any, base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "person.mp4"
    video.save_to(str(path))
    shutil.rmtree(base / "models" / "letstalk", ignore_errors=True)
    run("filmed", video=InputImpl.VideoFromFile(str(path)))
    assert (base / "models" / "letstalk" / "filmed" / "asked.txt").is_file() and path.is_file()


def test_frames_and_sound_make_a_video_to_train_on(run: Any) -> None:
    sound = {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 16000}
    folder = Path(run("goro", images=torch.rand(25, 64, 64, 3), audio=sound, lora=True)[4])
    assert "--lora" in (folder / "asked.txt").read_text()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"consent": False}, "consent: is off"),
        ({"name": "../eva"}, "name: '../eva' must be letters"),
        ({"name": ""}, "must be letters"),
        ({"video": None}, "wire either video, or images and audio"),
        ({"video": None, "images": torch.rand(3, 8, 8, 3)}, "images need the sound"),
        ({"name": "bad"}, "gives 0 s to train on; give minutes of one person"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    run: Any, video: Any, inputs: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Exception, match=words) as error:
        run(**{"name": "eva", "video": video, **inputs})
    assert "\n" not in str(error.value) and "some warning" not in str(error.value)
    assert ("some warning" in caplog.text) == (inputs.get("name") == "bad")  # ComfyUI's console has all of it


def test_a_cancelled_training_may_write_its_state(
    run: Any, video: Any, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel(*_: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("slow", video=video)
    folder = base / "models" / "letstalk" / "slow"
    assert (folder / "work" / "state").is_file()
    assert len(list(folder.glob("source-*.mp4"))) == 1  # for the run that goes on


def test_a_copy_without_training_says_how_to_get_it(sub: Any, tmp_path: Path, monkeypatch: Any) -> None:
    module = sub("nodes.adapters.personalize")
    start, environment = module.command()
    assert start[1:] == ["-m", "letstalk_core.cli"]
    assert (Path(environment["PYTHONPATH"].split(os.pathsep)[0]) / "letstalk_research").is_dir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Exception, match="pip install 'letstalk-portrait"):
        module.command()
