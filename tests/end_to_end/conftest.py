"""Shared fixtures: a model folder so small that whole runs take a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from letstalk_core.networks.load import ModelBundle, build_model, load_bundle
from letstalk_research.data.synthetic.speech import write_wav

from .command import Cli
from .media import tone


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random networks: 32 px frames, 4-frame clips, flow prediction. Read only."""
    from benchmarks.tiny import save_models, tiny_configs

    configs = tiny_configs(levels=3, width=16, layers=2, grid=8, scaling_factor=0.5)
    folder = tmp_path_factory.mktemp("tiny-bundle")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {c.kind: build_model(c) for c in configs}
        for kind in ("autoencoder", "audio_projection", "dit"):
            models[kind].init_weights()
        for parameter in models["dit"].parameters():  # open the gates that start closed
            torch.nn.init.normal_(parameter, std=0.3)
    save_models(folder, models)
    return folder


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> ModelBundle:
    return load_bundle(tiny_bundle)


@pytest.fixture
def portrait_png(tmp_path: Path) -> Path:
    """A picture of 40 x 48 pixels with a gradient."""
    from PIL import Image

    path = tmp_path / "portrait.png"
    pixels = torch.arange(48 * 40 * 3).remainder(251).to(torch.uint8).view(48, 40, 3)
    Image.fromarray(pixels.numpy()).save(path)
    return path


@pytest.fixture
def make_wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tone of the given length: make_wav(seconds, name)."""

    def make(seconds: float, name: str = "speech.wav") -> Path:
        path = tmp_path / name
        write_wav(path, tone(seconds))
        return path

    return make


@pytest.fixture
def cli(portrait_png: Path, make_wav: Callable[..., Path], tmp_path: Path, tiny_bundle: Path, request: Any) -> Cli:
    (tmp_path / "out").mkdir()
    captured = request.getfixturevalue("capfd" if "capfd" in request.fixturenames else "capsys")
    return Cli(portrait_png, make_wav, tmp_path / "out", tiny_bundle, captured)
