"""Weights in the public formats: names, shapes, configs, and files that are something else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.errors import CheckpointError, ConfigError
from letstalk_core.networks.autoencoder import convert
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.configs import AutoencoderConfig
from letstalk_core.networks.presets import AUTOENCODER

PUBLIC = [name for name in AUTOENCODER if name != "demo"]


def small(name: str, **changes: Any) -> AutoencoderConfig:
    """A preset of the same kind, narrow and shallow."""
    config = AUTOENCODER[name]
    stages = len(config.encoder_block_out_channels)
    fields: dict[str, Any] = {
        "latent_channels": 8,
        "encoder_block_out_channels": (8, 8, 16, 32, 32, 32, 32, 32)[:stages],
        "decoder_block_out_channels": (8, 8, 16, 32, 32, 32, 32, 32)[:stages],
        "encoder_layers_per_block": tuple(min(1, n) for n in config.encoder_layers_per_block),
        "decoder_layers_per_block": tuple(min(1, n) for n in config.decoder_layers_per_block),
    }
    return dataclasses.replace(config, **{**fields, **changes})


def random_state(config: AutoencoderConfig) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = AutoencoderDC(config)
    model.init_weights()
    return {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=0, atol=0, msg=key)


@pytest.fixture
def presets(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the table of public models by small ones."""

    def replace(**configs: AutoencoderConfig) -> None:
        monkeypatch.setattr(convert, "AUTOENCODER", {k.replace("_", "-"): v for k, v in configs.items()})

    return replace


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of a model that is in no table, in a folder without a config."""
    save_file(random_state(small("f32c32-sana-1.0")), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


KINDS = ["f32c32-sana-1.1", "lite-f32c32-sana-1.1", "f64c128-mix-1.0", "demo"]


@pytest.mark.parametrize("name", KINDS)
def test_the_original_format_and_back_is_the_identity(name: str) -> None:
    config = small(name)
    state = random_state(config)
    assert_equal(convert.from_original(convert.to_original(state, config), config), state)


@pytest.mark.parametrize("name", ["f32c32-sana-1.1", "f64c128-mix-1.0"])
def test_the_original_format_is_the_one_that_diffusers_reads(name: str) -> None:
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    config = small(name)
    state = random_state(config)
    theirs = single_file.convert_autoencoder_dc_checkpoint_to_diffusers(convert.to_original(state, config))
    assert_equal(theirs, state)


COUNTS = {"f32c32-sana-1.0": (339, 375), "f32c32-in-1.0": (338, 362), "f64c128-mix-1.0": (386, 418)}


@pytest.mark.parametrize("name", COUNTS)
def test_both_formats_have_as_many_tensors_as_the_published_files(name: str) -> None:
    config = AUTOENCODER[name]
    state = AutoencoderDC(config, device="meta").state_dict()
    assert (len(convert.to_original(state, config)), len(state)) == COUNTS[name]


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("scheme", ["diffusers", "original"])
def test_every_public_model_is_told_by_its_tensors_and_its_name(name: str, scheme: str, tmp_path: Path) -> None:
    config = AUTOENCODER[name]
    state = dict(AutoencoderDC(config, device="meta").state_dict())
    if scheme == "original":
        state = convert.to_original(state, config)
    assert convert.detect_scheme(state) == scheme
    assert convert.infer_config(tmp_path / f"dc-ae-{name}" / "model.safetensors", state) == config


def test_weights_that_two_models_could_own_are_not_guessed(tmp_path: Path) -> None:
    state = AutoencoderDC(AUTOENCODER["f32c32-in-1.0"], device="meta").state_dict()
    with pytest.raises(CheckpointError, match=r"f32c32-in-1.0 or f32c32-mix-1.0.*config\.json"):
        convert.infer_config(tmp_path / "model.safetensors", state)


def test_a_diffusers_folder_loads_with_its_own_config(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    values = convert.config_to_diffusers(small("lite-f32c32-sana-1.1", scaling_factor=0.25))
    values.update(decoder_block_types="ResBlock", decoder_norm_types="rms_norm", decoder_act_fns="silu")
    reference = diffusers.AutoencoderDC.from_config(values)
    reference.save_pretrained(tmp_path)
    model = convert.load_autoencoder(tmp_path, dtype=torch.bfloat16)
    assert model.config.scaling_factor == 0.25 and model.config.decoder_block_types == ("ResBlock",) * 6
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.encoder.conv_out.weight.dtype == torch.bfloat16
    torch.testing.assert_close(model.encoder.conv_out.weight, reference.encoder.conv_out.weight.bfloat16())


def test_an_original_repository_is_told_by_its_config(tmp_path: Path, presets: Callable[..., None]) -> None:
    one, other = small("f32c32-in-1.0"), small("f32c32-mix-1.0")
    presets(small_in=one, small_mix=other)
    state = random_state(other)
    save_file(convert.to_original(state, other), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "dc-ae-small-mix"}))
    config, tensors = convert.read_autoencoder(tmp_path / "model.safetensors")
    assert config == other
    assert_equal(tensors, state)


def test_a_training_checkpoint_is_unwrapped(tmp_path: Path, presets: Callable[..., None]) -> None:
    config = small("f32c32-sana-1.0")
    presets(small=config)
    state = random_state(config)
    wrapped = {f"module.{k}": v for k, v in convert.to_original(state, config).items()}
    torch.save({"state_dict": wrapped, "step": 7}, tmp_path / "last.pt")
    assert_equal(convert.read_autoencoder(tmp_path / "last.pt")[1], state)


def test_our_own_file_needs_no_guess(tmp_path: Path) -> None:
    config = small("demo", scaling_factor=0.7)
    state = random_state(config)
    save_checkpoint(tmp_path / "autoencoder.safetensors", {"autoencoder": (config, state)})
    found, tensors = convert.read_autoencoder(tmp_path / "autoencoder.safetensors")
    assert found == config
    assert_equal(tensors, state)


def test_missing_batch_counters_do_no_harm(tmp_path: Path, presets: Callable[..., None]) -> None:
    config = small("f32c32-mix-1.0")
    presets(small=config)
    state = {k: v for k, v in random_state(config).items() if "num_batches" not in k}
    save_file(state, tmp_path / "a.safetensors")
    save_file(convert.to_original(state, config), tmp_path / "b.safetensors")
    first, second = (
        convert.load_autoencoder(tmp_path / "a.safetensors"),
        convert.load_autoencoder(tmp_path / "b.safetensors"),
    )
    assert_equal(dict(second.state_dict()), dict(first.state_dict()))


def test_what_is_not_known_is_not_guessed(weights: Path) -> None:
    with pytest.raises(CheckpointError, match=r"fit none of.*config\.json"):
        convert.read_autoencoder(weights)
    other = weights.with_name("other.safetensors")
    save_file({"blocks.0.weight": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError, match=r"other\.safetensors: not a DC-AE.*blocks\.0\.weight"):
        convert.read_autoencoder(other)
    with pytest.raises(CheckpointError, match="holds 2 .safetensors files"):
        convert.read_autoencoder(weights.parent)


def test_a_config_that_does_not_match_the_weights_names_the_first_five_and_the_count(weights: Path) -> None:
    values = convert.config_to_diffusers(small("f32c32-sana-1.0", encoder_layers_per_block=(1, 1, 1, 1, 1, 2)))
    weights.with_name("config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"\d+ tensors missing: (encoder\.[^,]+, ){5}…"):
        convert.read_autoencoder(weights.parent)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model_type": "bert"}', '{"encoder_block_out_channels": [8], "x": 1}']
)
def test_a_config_json_of_something_else_is_named(text: str, weights: Path) -> None:
    weights.with_name("config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: no config of a DC-AE"):
        convert.read_autoencoder(weights.parent)


@pytest.mark.parametrize("name", [*PUBLIC, "demo"])
def test_configs_survive_the_diffusers_format(name: str) -> None:
    config = AUTOENCODER[name]
    values = json.loads(json.dumps(convert.config_to_diffusers(config)))
    assert convert.config_from_diffusers({**values, "_diffusers_version": "0.42"}) == dataclasses.replace(
        config, image_size=512
    )


def test_foreign_names_of_fields_and_tensors_are_refused() -> None:
    values = convert.config_to_diffusers(AUTOENCODER["demo"])
    with pytest.raises(ConfigError, match="wavelets"):
        convert.config_from_diffusers({**values, "wavelets": True})
    with pytest.raises(CheckpointError, match="'encoder.down_blocks.0.0.lora.weight' does not belong"):
        convert.original_key("encoder.down_blocks.0.0.lora.weight", AUTOENCODER["demo"])
