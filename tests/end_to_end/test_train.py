"""From clips to a model folder with the commands a user types: train, encode, train, generate's loader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.tiny import tiny_encoder
from letstalk_core.cli.__main__ import main
from letstalk_core.networks.audio_encoder import AudioEncoder, save_audio_encoder
from letstalk_core.networks.load import load_bundle
from letstalk_research.data.manifest import Manifest
from tests.unit.training.conftest import TINY, write_clip

ENCODER = tiny_encoder(16, 2)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips that are not encoded yet."""
    folder = tmp_path / "data"
    for i in range(4):
        write_clip(folder, str(i), split="val" if i == 0 else "train", encoded=False)
    return folder


def write_recipe(folder: Path, stage: str, data: Path) -> list[str]:
    """A recipe file of two steps that validate and draw, and the options that name it."""
    path = folder / f"{stage}.toml"
    path.write_text(TINY[stage])
    changes = [f"data.folder={data.as_posix()}", "data.batch_size=2", "data.workers=1", "data.validation_items=2"]
    changes += [f"loop.run={(folder / f'{stage}-run').as_posix()}", "loop.steps=2", "loop.device=cpu"]
    changes += ["loop.precision=fp32", "loop.validate_every=2", "loop.sample_every=2", "optimizer.name=muon"]
    return ["--config", str(path), *(word for change in changes for word in ("--set", change))]


def test_trained_parts_make_a_model_folder(tmp_path: Path, clips: Path) -> None:
    folder = tmp_path / "model"
    assert main(["train", "autoencoder", *write_recipe(tmp_path, "autoencoder", clips)]) == 0
    folder.mkdir()
    (tmp_path / "autoencoder-run" / "autoencoder.safetensors").rename(folder / "autoencoder.safetensors")
    save_audio_encoder(folder / "audio_encoder.safetensors", AudioEncoder(ENCODER))
    files = [f"--{n}={folder / n.replace('-', '_')}.safetensors" for n in ("autoencoder", "audio-encoder")]
    assert main(["encode", str(clips), *files, "--device", "cpu"]) == 0
    assert len(Manifest(clips).select(with_latents=True)) == 4
    strips = f"objective.autoencoder={folder / 'autoencoder.safetensors'}"
    changes = ("--set", strips, "--set", "projection.encoder_dim=16")
    assert main(["train", "dit", *write_recipe(tmp_path, "dit", clips), *changes]) == 0
    assert (tmp_path / "dit-run" / "samples" / "step-0000002.png").is_file()
    (tmp_path / "dit-run" / "dit.safetensors").rename(folder / "dit.safetensors")
    bundle = load_bundle(folder)
    assert bundle.dit.config.clip_frames == 3
    assert bundle.autoencoder.config.scaling_factor != 1.0


def test_a_dry_run_prints_the_resolved_recipe_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"loop.run={tmp_path / 'run'}"
    command = ["train", "dit", "--config", "paper_dit", "--dry-run", "--set", "optimizer.lr=0.5", "--set", run]
    assert main(command) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert (resolved["optimizer"]["lr"], resolved["model"]["depth"]) == (0.5, 12)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["optimizer.rate=1", "data.folder=/no/where"])
def test_bad_arguments_give_one_line_and_exit_code_2(change: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One of the recipe, one that only a start finds; tests/unit/training has the others."""
    assert main(["train", "autoencoder", "--config", "demo_autoencoder", "--set", change]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and change.partition("=")[0].split(".")[1] in message


def test_prepare_reports_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert main(["prepare", str(tmp_path), "-o", str(tmp_path / "out"), "--no-detect"]) == 0
    assert "1 unreadable" in capsys.readouterr().err
