"""From a video of one person to that person's model, as a user types it: tiny networks, seconds of training."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.tiny import tiny_encoder
from letstalk_core.cli.__main__ import main
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks import configs
from letstalk_core.networks.audio_encoder import AudioEncoder, save_audio_encoder
from letstalk_core.networks.checkpoint import load_tensors, read_header, save_checkpoint
from letstalk_core.networks.load import DEMO_FOLDER, build_model, load_bundle
from letstalk_core.networks.motion_channels import MOVEMENTS
from letstalk_core.networks.presets import AUTOENCODER
from letstalk_research.data.clips import open_clip
from letstalk_research.data.manifest import Manifest
from letstalk_research.data.video_clips import write_video_clip
from letstalk_research.training import presenter

pytestmark = pytest.mark.slow
SIDE, FRAMES = 128, 325
ENCODER = tiny_encoder(16, 2)
DIT = configs.DiTConfig(
    hidden_size=32, depth=1, num_heads=2, in_channels=8, grid_size=(4, 4), clip_frames=4, memory_frames=1,
    anchor_frames=1, audio_token_dim=16, output="sample", portrait_residual=True, steps=1,
)  # fmt: skip
PROJECTION = configs.AudioProjectionConfig(
    window=3, layers=2, encoder_dim=16, hidden_size=16, tokens=2, token_dim=16, movement=MOVEMENTS
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights."""
    folder = tmp_path_factory.mktemp("base")
    shape = AUTOENCODER["demo"].to_dict() | {"latent_channels": 8, "image_size": SIDE}
    shape |= dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), (8, 8, 8, 16, 16, 16))
    torch.manual_seed(0)

    def part(config: configs.Config) -> tuple[configs.Config, dict[str, torch.Tensor]]:
        network: Any = build_model(config)
        network.init_weights()
        return config, network.state_dict()

    files = {
        "autoencoder": configs.AutoencoderConfig.from_dict(shape),
        "carry": configs.CarryConfig(hidden_size=8, working_size=32),
        "lips": configs.LipsConfig(layers=2, encoder_dim=16, hidden_size=8, tells_shut=True),
    }
    for name, config in files.items():
        save_checkpoint(folder / f"{name}.safetensors", {name: part(config)})
    save_checkpoint(folder / "dit.safetensors", {"dit": part(DIT), "audio_projection": part(PROJECTION)})
    save_audio_encoder(folder / "audio_encoder.safetensors", AudioEncoder(ENCODER))
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn face that drifts to the right and hums."""
    path = tmp_path_factory.mktemp("video") / "person.mp4"
    face = resize(load_portrait(next((DEMO_FOLDER / "portraits").glob("ada*"))), (160, 160))
    pictures = torch.full((FRAMES, 160, 240, 3), 90, dtype=torch.uint8)
    for i in range(FRAMES):
        left = 40 + i // 16
        pictures[i, :, left : left + 160] = face
    write_video_clip(path, pictures, 0.3 * torch.sin(torch.arange(FRAMES * 640) / 11), 25)
    return path


Run = Callable[..., int]


def command(video: Path, base: Path, folder: Path, *options: str) -> int:
    where = ["personalize", str(video), "-o", str(folder), "--model", str(base), "--device", "cpu"]
    return main([*where, "--minutes", "0.02", "--clips", "1", *options])


@pytest.fixture(scope="module")
def prepared(video: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a run that was stopped before it trained anything."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presenter, "train", lambda stage, watch: SimpleNamespace(signal=int(signal.SIGTERM)))
        assert command(video, base, folder, "--quiet") == 128 + signal.SIGTERM
    return folder / "work"


@pytest.fixture
def personalize(video: Path, base: Path, prepared: Path, tmp_path: Path) -> Run:
    """Goes on in `tmp_path/eva`."""
    shutil.copytree(prepared, tmp_path / "eva" / "work")
    return partial(command, video, base, tmp_path / "eva")


def test_a_video_becomes_a_model_that_is_measured_on_what_it_never_saw(
    personalize: Run, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert personalize("--json", "--keep-work") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stages = list(dict.fromkeys(line["stage"] for line in lines[:-1]))
    made = ["preparing", "training autoencoder", "encoding", "training lips", "training dit", "training carry"]
    assert stages == [*made, "measuring"]

    folder = tmp_path / "eva"
    bundle = load_bundle(folder)
    assert bundle.lips is not None
    assert bundle.dit.config == load_bundle(base).dit.config
    for name in ("autoencoder", "dit"):
        old, new = (load_tensors(f / f"{name}.safetensors") for f in (base, folder))
        assert any(not torch.equal(old[k].half(), new[k].half()) for k in old)
        assert read_header(folder / f"{name}.safetensors").metadata["letstalk.presenter"] == "eva"
    assert load_portrait(folder / "portrait.png").shape == (SIDE, SIDE, 3)
    report = json.loads((folder / "report" / "report.json").read_text())
    assert [clip["metrics"]["after: decode, dB: frame"] > 0 for clip in report["clips"]["clip"]] == [True]

    records = list(Manifest(folder / "work" / "data"))
    assert sum(r.frames for r in records) == FRAMES
    assert [r.frames for r in records if r.split == "val"] == [33]
    clip = open_clip(folder / "work" / "data", records[0])
    drift = clip.motion()[:, clip.motion_names.index("shift_x")].float()
    assert drift[-25:].mean() - drift[:25].mean() == pytest.approx(
        14 / 160, abs=0.04
    )  # image widths in 250 frames

    assert personalize("--restart", "--lora") == 2  # not over a finished model without --overwrite
    assert (
        personalize("--keep-work", "--minutes", "0.01", "--clips", "0") == 0
    )  # less than was trained: nothing to do


def test_a_stopped_run_goes_on_and_refuses_other_videos(
    personalize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = presenter.train
    trained: list[str] = []

    def stopped(stage: Any, watch: Any) -> Any:
        trained.append(stage.recipe.stage)
        if stage.recipe.stage == "dit" and trained.count("dit") == 1:
            return SimpleNamespace(signal=int(signal.SIGTERM))
        return train(stage, watch)

    monkeypatch.setattr(presenter, "train", stopped)
    assert personalize("--clips", "0", "--quiet") == 128 + signal.SIGTERM
    assert personalize("--clips", "0", "--quiet", "--lora") == 2
    assert "other videos or another model" in capsys.readouterr().err
    assert personalize("--clips", "0", "--quiet") == 0
    assert trained == ["autoencoder", "lips", "dit", "dit", "carry"]
    assert not (tmp_path / "eva" / "work").exists()


def test_a_lora_is_a_small_file_on_top_of_the_model_it_began_with(
    personalize: Run, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "eva" / "work" / "job.json").unlink()  # the same clips serve any run
    assert personalize("--lora", "--rank", "2", "--clips", "0", "--quiet") == 0
    folder = tmp_path / "eva"
    old, new = (load_tensors(f / "dit.safetensors") for f in (base, folder))
    changes = load_file(folder / "lora.safetensors")
    assert all(key.startswith("diffusion_model.") for key in changes)
    layers = {key.removesuffix(".alpha") for key in changes if key.endswith(".alpha")}
    inner = {key: f"diffusion_model.{key.removeprefix('dit.')}" for key in old}
    for key, weight in old.items():
        layer = inner[key].removesuffix(".weight")
        added = 0.0
        if layer in layers and key.endswith(".weight"):
            added = changes[f"{layer}.lora_up.weight"].float() @ changes[f"{layer}.lora_down.weight"].float()
        torch.testing.assert_close(new[key].float(), weight.float() + added, rtol=2e-3, atol=2e-3)
    assert any(changes[f"{layer}.lora_up.weight"].abs().max() > 0 for layer in layers)
    encoders = [load_tensors(f / "autoencoder.safetensors", prefix="autoencoder.encoder.") for f in (base, folder)]
    assert all(torch.equal(a.half(), encoders[1][k]) for k, a in encoders[0].items())


def test_a_video_without_a_person_is_refused_in_one_line(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "noise.mp4"
    write_video_clip(
        path, torch.randint(0, 255, (40, 96, 96, 3), dtype=torch.uint8), torch.randn(40 * 640) / 9, 25
    )
    assert main(["personalize", str(path), "-o", str(tmp_path / "x"), "--model", str(base), "--quiet"]) == 2
    message = capsys.readouterr().err
    assert "gives 0 s to train on" in message and "no face" in message and message.count("\n") == 1
