"""`letstalk info` and `letstalk convert`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from letstalk_core.cli.__main__ import main
from letstalk_core.networks.autoencoder.convert import config_to_diffusers
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.load import load_model
from letstalk_core.networks.presets import DIT
from letstalk_core.networks.transformer.convert import dit_to_official, projection_to_official
from letstalk_core.sampling.memory_bank import MemoryBank

from .command import Cli


def test_a_png_frame_says_how_it_was_made(cli: Cli) -> None:
    assert cli(0.1, "--png", str(cli.out / "f"), "--seed", "5") == 0
    cli.capsys.readouterr()
    assert main(["info", "--json", str(cli.out / "f" / "frame_000000.png")]) == 0
    found = json.loads(cli.capsys.readouterr().out)
    assert (found["width"], found["height"]) == (32, 32)
    metadata = found["metadata"]
    assert metadata["comment"].startswith("AI-generated")
    assert metadata["letstalk"]["settings"]["seed"] == 5
    assert set(metadata["letstalk"]["models_sha256"]) == {"autoencoder", "audio_encoder", "dit"}
    assert metadata["digital_source_type"].endswith("trainedAlgorithmicMedia")


def test_info_shows_models_banks_and_videos(cli: Cli) -> None:
    bank = MemoryBank(2, 1)
    bank.reset(torch.zeros(1, 4, 8, 8))
    bank.save(cli.out / "bank.safetensors")
    cli(0.2, "--seed", "77", "--quiet")

    def info(path: Path) -> dict[str, Any]:
        assert main(["info", "--json", str(path)]) == 0
        found: dict[str, Any] = json.loads(cli.capsys.readouterr().out)
        return found

    model = info(cli.bundle / "dit.safetensors")
    assert model["parts"]["dit"]["config"]["clip_frames"] == 4 and set(model["parts"]) == {
        "dit",
        "audio_projection",
    }
    assert model["parameters"] == sum(part["parameters"] for part in model["parts"].values())
    assert info(cli.out / "bank.safetensors")["memory_bank"]["recent"] == 2
    video = info(cli.out / "v.mp4")
    assert video["metadata"]["letstalk"]["settings"]["seed"] == 77
    assert main(["info", str(cli.out / "v.mp4")]) == 0
    assert "seed: 77" in cli.capsys.readouterr().out


def test_info_of_a_damaged_file_gives_one_line(cli: Cli, tmp_path: Path) -> None:
    for name in ("x.safetensors", "x.mp4"):
        (tmp_path / name).write_bytes(b"damaged")
        assert main(["info", str(tmp_path / name)]) == 2
        cli.error(name)


@pytest.mark.parametrize("header", ["{", "[1]", "[" * 9999])
def test_info_of_a_damaged_memory_bank_gives_one_line(cli: Cli, header: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "bank.safetensors", metadata={"letstalk.memory_bank": header})
    assert main(["info", str(tmp_path / "bank.safetensors")]) == 2
    cli.error("bank.safetensors: is a damaged memory bank")


def test_info_shows_notes_about_a_model(cli: Cli, tmp_path: Path) -> None:
    parts = {"dit": (DIT["demo"], {"weight": torch.zeros(1)})}
    save_checkpoint(tmp_path / "dit.safetensors", parts, {"letstalk.recipe": "demo", "source": "a.pt"})
    assert main(["info", "--json", str(tmp_path / "dit.safetensors")]) == 0
    assert json.loads(cli.capsys.readouterr().out)["metadata"] == {"letstalk.recipe": "demo", "source": "a.pt"}


def test_a_denoiser_of_the_authors_is_converted(cli: Cli, tmp_path: Path) -> None:
    dit = load_model(cli.bundle / "dit.safetensors", "dit")
    projection = load_model(cli.bundle / "dit.safetensors", "audio_projection")
    spoken = {k: v for k, v in projection.state_dict().items() if "movement" not in k}  # theirs knows no movement
    official = {
        "model": {k: torch.zeros_like(v) for k, v in dit_to_official(dit.state_dict(), dit.config).items()},
        "ema": dit_to_official(dit.state_dict(), dit.config),
        "audioproj": projection_to_official(spoken),
    }
    torch.save(official, tmp_path / "official.pt")
    arguments = ["convert", str(tmp_path / "official.pt"), "-o", str(cli.out / "dit.safetensors")]
    assert main(arguments) == 2  # no preset is 16 wide
    cli.error("num_heads")
    assert cli.left() == []


def test_a_wav2vec2_folder_and_an_autoencoder_are_converted(cli: Cli, tmp_path: Path) -> None:
    for kind in ("audio_encoder", "autoencoder"):
        model = load_model(cli.bundle / f"{kind}.safetensors")
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "autoencoder":
            config = config_to_diffusers(model.config)
        else:
            config = {"model_type": "wav2vec2", **model.config.to_dict()}
        (folder / "config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), str(folder / "model.safetensors"))
        target = cli.out / f"{kind}.safetensors"
        assert main(["convert", str(folder), "-o", str(target), "--dtype", "float16"]) == 0
        again = load_model(target)
        for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3, msg=name)  # stored in float16


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "folder"])
def test_a_source_that_is_no_model_gives_one_line(cli: Cli, name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for file in ("x.pt", "x.safetensors"):
        (tmp_path / file).write_bytes(b"nothing of use")
    assert main(["convert", str(tmp_path / name), "-o", str(cli.out / "m.safetensors")]) == 2
    cli.error(name)
    assert cli.left() == []
