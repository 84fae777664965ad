"""A tiny model, a portrait, a tone, and the command that takes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from letstalk_core.networks.load import ModelBundle, load_bundle
from letstalk_research.data.synthetic.speech import write_wav

from .command import Cli
from .media import tone


@pytest.fixture(scope="session")
def tiny_bundle(make_tiny_bundle: Callable[..., Path]) -> Path:
    """A model folder so small that whole runs take a moment. Read only."""
    return make_tiny_bundle()


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> ModelBundle:
    return load_bundle(tiny_bundle)


@pytest.fixture
def portrait_png(tmp_path: Path) -> Path:
    """A picture of 40 x 48 pixels with a gradient."""
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
