"""Model folders and what belongs together in them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from letstalk_core.errors import CheckpointError, ConfigError
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.configs import LipsConfig
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.load import ModelBundle, load_bundle, load_model
from letstalk_core.networks.transformer.dit import LetsTalkDiT


def test_a_bundle_knows_its_files(bundle: ModelBundle) -> None:
    assert set(bundle.hashes()) == {"autoencoder", "audio_encoder", "dit"} and not bundle.is_demo
    assert (bundle.pixels_per_token, bundle.dtype, bundle.device.type) == (4, torch.float32, "cpu")
    for model in (bundle.autoencoder, bundle.audio_encoder, bundle.audio_projection, bundle.dit):
        assert not model.training and not any(p.requires_grad or p.is_meta for p in model.parameters())


def test_a_folder_without_a_file_names_it(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "autoencoder.safetensors").symlink_to(tiny_bundle / "autoencoder.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks audio_encoder.safetensors, dit.safetensors"):
        load_bundle(tmp_path)
    with pytest.raises(CheckpointError, match="not a folder"):
        load_bundle(tmp_path / "nothing")


def test_files_that_do_not_belong_together_are_refused(bundle: ModelBundle) -> None:
    other = LetsTalkDiT(replace(bundle.dit.config, in_channels=8))
    with pytest.raises(ConfigError, match="latent_channels=4 but dit in_channels=8"):
        ModelBundle(bundle.autoencoder, bundle.audio_encoder, bundle.audio_projection, other)


def test_one_part_of_a_file_is_chosen_by_kind(tiny_bundle: Path) -> None:
    assert load_model(tiny_bundle / "autoencoder.safetensors").config.kind == "autoencoder"
    assert load_model(tiny_bundle / "dit.safetensors", "audio_projection").config.kind == "audio_projection"
    with pytest.raises(CheckpointError, match="name the kind"):
        load_model(tiny_bundle / "dit.safetensors")
    with pytest.raises(CheckpointError, match="not a model of kind"):
        load_model(tiny_bundle / "dit.safetensors", "autoencoder")


def test_lips_that_read_another_encoder_are_refused_with_their_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "model")
    lips = Lips(LipsConfig(layers=7, encoder_dim=8, hidden_size=8))
    save_checkpoint(folder / "lips.safetensors", {"lips": (lips.config, lips.state_dict())})
    with pytest.raises(CheckpointError, match=r"model: .*hidden_size=16 but lips encoder_dim=8"):
        load_bundle(folder)
