"""From clips to a model folder with the commands a user types: train, encode, train, generate's loader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.tiny import tiny_encoder
from letstalk_core.cli.__main__ import main
from letstalk_core.networks.audio_encoder import AudioEncoder, save_audio_encoder
from letstalk_core.networks.load import load_bundle
from letstalk_research.data.manifest import ClipRecord, Manifest, append_records

FRAMES = 8
RECIPE = """
[data]
folder = "{data}"
batch_size = 2
workers = 1
validation_items = 2
[loop]
run = "{run}"
steps = 2
device = "cpu"
precision = "fp32"
validate_every = 2
sample_every = 2
[optimizer]
name = "muon"
lr = 1e-3
"""
AUTOENCODER = (
    """
[model]
preset = "demo"
latent_channels = 8
encoder_block_out_channels = [8, 8, 8, 16, 16, 16]
decoder_block_out_channels = [8, 8, 8, 16, 16, 16]
image_size = 64
"""
    + RECIPE
)
DIT = (
    """
[model]
preset = "demo"
in_channels = 8
hidden_size = 32
depth = 1
num_heads = 2
grid_size = [2, 2]
clip_frames = 4
audio_token_dim = 16
[projection]
window = 3
layers = 2
encoder_dim = 16
hidden_size = 16
tokens = 2
token_dim = 16
"""
    + RECIPE
)
ENCODER = tiny_encoder(16, 2)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips of noise with hum."""
    folder = tmp_path / "data"
    (folder / "clips").mkdir(parents=True)
    for i in range(4):
        tensors = {
            "frames": torch.randint(0, 255, (FRAMES, 64, 64, 3), dtype=torch.uint8),
            "audio": (8000 * torch.sin(torch.arange(640 * FRAMES) / (9 + i))).short(),
            "regions": torch.tensor([[20, 36, 44, 52], [10, 16, 28, 26], [36, 16, 54, 26]])
            .repeat(FRAMES, 1, 1)
            .short(),
        }
        save_file(tensors, str(folder / "clips" / f"{i}.safetensors"))
        split = "val" if i == 0 else "train"
        append_records(folder, [ClipRecord(id=str(i), clip=f"clips/{i}.safetensors", frames=FRAMES, split=split)])
    return folder


def write_recipe(path: Path, text: str, data: Path) -> str:
    path.write_text(text.format(data=data.as_posix(), run=(path.parent / path.stem).as_posix()))
    return str(path)


def test_trained_parts_make_a_model_folder(tmp_path: Path, clips: Path) -> None:
    folder = tmp_path / "model"
    autoencoder = write_recipe(tmp_path / "ae.toml", AUTOENCODER, clips)
    assert main(["train", "autoencoder", "--config", autoencoder]) == 0
    folder.mkdir()
    (tmp_path / "ae" / "autoencoder.safetensors").rename(folder / "autoencoder.safetensors")
    save_audio_encoder(folder / "audio_encoder.safetensors", AudioEncoder(ENCODER))
    files = [f"--{n}={folder / n.replace('-', '_')}.safetensors" for n in ("autoencoder", "audio-encoder")]
    assert main(["encode", str(clips), *files, "--device", "cpu"]) == 0
    assert len(Manifest(clips).select(with_latents=True)) == 4
    dit = write_recipe(tmp_path / "dit.toml", DIT, clips)
    strips = f"objective.autoencoder={folder / 'autoencoder.safetensors'}"
    assert main(["train", "dit", "--config", dit, "--set", strips]) == 0
    assert (tmp_path / "dit" / "samples" / "step-0000002.png").is_file()
    (tmp_path / "dit" / "dit.safetensors").rename(folder / "dit.safetensors")
    bundle = load_bundle(folder)
    assert bundle.dit.config.clip_frames == 4
    assert bundle.autoencoder.config.scaling_factor != 1.0


def test_a_dry_run_prints_the_resolved_recipe_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"loop.run={tmp_path / 'run'}"
    assert (
        main(["train", "dit", "--config", "paper_dit", "--dry-run", "--set", "optimizer.lr=0.5", "--set", run])
        == 0
    )
    resolved = json.loads(capsys.readouterr().out)
    assert (resolved["optimizer"]["lr"], resolved["model"]["depth"]) == (0.5, 12)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "no_such"], ["no_such", "demo_autoencoder"]),
        (["--config", "demo_autoencoder", "--set", "optimizer.rate=1"], ["optimizer", "rate"]),
        (["--config", "demo_autoencoder", "--set", "data.folder=/no/where"], ["/no/where", "prepare"]),
        (["--config", "demo_dit"], ["dit", "autoencoder"]),
    ],
)
def test_bad_arguments_give_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "autoencoder", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert [w for w in words if w not in message] == []


def test_prepare_reports_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert main(["prepare", str(tmp_path), "-o", str(tmp_path / "out"), "--no-detect"]) == 0
    assert "1 unreadable" in capsys.readouterr().err
