"""Every DC-AE configuration against diffusers' AutoencoderDC: the same random weights, the same output.

The model that users are most likely to bring is compared at its public widths with one block a stage, the others
at an eighth of theirs with up to two, the bundled one as it is. LETSTALK_GOLDEN=full compares all at full width,
and the first at full depth: a minute of computing and 6 GB. 1e-5 of the largest value is float32 with sums in
another order.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from letstalk_core.generate.stages import Stages
from letstalk_core.networks.autoencoder import convert
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.autoencoder.tiling import Tiling, tiled_decode, tiled_encode
from letstalk_core.networks.configs import AutoencoderConfig
from letstalk_core.networks.presets import AUTOENCODER
from letstalk_core.sampling.long_video import Clip

FULL = os.environ.get("LETSTALK_GOLDEN") == "full"
WHOLE = "f32c32-sana-1.1"
# Grids of latents that make the earlier attention stages linear and the last ones quadratic.
GRIDS = {WHOLE: (1, 3), "lite-f32c32-sana-1.1": (2, 3), "f32c32-mix-1.0": (2, 3), "f64c128-mix-1.0": (1, 2),
         "f128c512-mix-1.0": (1, 1)}  # fmt: skip
OURS = {"demo": (2, 3)}


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def reduced(name: str, depth: int = 1, divisor: int = 1, **changes: Any) -> AutoencoderConfig:
    """The public model with at most `depth` blocks a stage, and less wide; empty stages stay empty."""
    config = AUTOENCODER[name]
    widths = tuple(w // divisor for w in config.encoder_block_out_channels)
    fields: dict[str, Any] = {
        "latent_channels": config.latent_channels // min(divisor, 4),
        "encoder_block_out_channels": widths,
        "decoder_block_out_channels": widths,
        "encoder_layers_per_block": tuple(min(depth, n) for n in config.encoder_layers_per_block),
        "decoder_layers_per_block": tuple(min(depth, n) for n in config.decoder_layers_per_block),
    }
    return dataclasses.replace(config, **{**fields, **changes})


def random_state(config: AutoencoderConfig) -> dict[str, Tensor]:
    """Weights that use every parameter. Cut from one pool of noise: hundreds of millions are slow to draw."""
    pool = torch.randn((1 << 20) + 7, generator=torch.Generator().manual_seed(0))
    state = {}
    for key, shape in ((k, v.shape) for k, v in AutoencoderDC(config, device="meta").state_dict().items()):
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.long)
            continue
        noise = pool.repeat(-(-shape.numel() // pool.numel()))[: shape.numel()].reshape(shape)
        if noise.ndim > 1:
            state[key] = noise * noise[0].numel() ** -0.5
        elif key.endswith(("norm.weight", "norm_out.weight", "running_var")):
            state[key] = 1 + 0.3 * noise.abs()
        else:
            state[key] = 0.1 * noise
    return state


def pair(config: AutoencoderConfig, state: dict[str, Tensor]) -> tuple[AutoencoderDC, nn.Module]:
    """Our model and the reference, which share the memory of their weights."""
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        reference = diffusers.AutoencoderDC.from_config(convert.config_to_diffusers(config))
    ours = AutoencoderDC(config, device="meta")
    for model in (ours, reference):
        model.load_state_dict(state, assign=True)  # strict: names and shapes are the same
    return ours.eval(), reference.eval()


def test_models_that_are_not_compared_differ_from_one_that_is_in_scale_only() -> None:
    assert AUTOENCODER["f32c32-sana-1.0"] == AUTOENCODER["f32c32-sana-1.1"]
    for family in ("f32c32", "f64c128", "f128c512"):
        mix = AUTOENCODER[f"{family}-mix-1.0"]
        scale = AUTOENCODER[f"{family}-in-1.0"].scaling_factor
        assert AUTOENCODER[f"{family}-in-1.0"] == dataclasses.replace(mix, scaling_factor=scale)


@pytest.mark.parametrize("name", [*GRIDS, *OURS])
@torch.no_grad()
def test_the_model_agrees_with_diffusers(name: str) -> None:
    rows, columns = {**GRIDS, **OURS}[name]
    if name in OURS:  # in diffusers only the first stage can have no layer
        layers = (0, *(max(1, n) for n in AUTOENCODER[name].encoder_layers_per_block[1:]))
        config = reduced(name, encoder_layers_per_block=layers, decoder_layers_per_block=layers)
    elif name == WHOLE:
        config = reduced(name, 9 if FULL else 1)
    else:
        config = reduced(name, 2, 1 if FULL else 8)
    ours, reference = pair(config, random_state(config))
    factor = config.spatial_factor
    images = torch.rand(2 if name in OURS else 1, 3, rows * factor, columns * factor) * 2 - 1
    latents = reference.encode(images).latent
    assert_same(ours.encode(images), latents)
    assert_same(ours.decode(latents), reference.decode(latents).sample)


@pytest.mark.parametrize("name", GRIDS)
@torch.no_grad()
def test_files_of_both_formats_give_the_same_model(name: str, tmp_path: Path) -> None:
    """Through files; a public file differs in numbers, not in names."""
    config = reduced(name, 1, 16, latent_channels=8, attention_head_dim=8)
    ours, reference = pair(config, random_state(config))
    reference.save_pretrained(tmp_path / "diffusers")
    (tmp_path / "original").mkdir()
    save_file(convert.to_original(ours.state_dict(), config), tmp_path / "original" / "model.safetensors")
    (tmp_path / "original" / "config.json").write_bytes((tmp_path / "diffusers" / "config.json").read_bytes())
    latents = torch.randn(1, 8, 1, 2)
    expected = reference.decode(latents).sample
    for folder in ("diffusers", "original"):
        model = convert.load_autoencoder(tmp_path / folder)
        assert model.config == config
        assert_same(model.decode(latents), expected)


class Through:
    """A diffusers autoencoder behind the two methods that tiling uses."""

    def __init__(self, config: AutoencoderConfig, model: nn.Module) -> None:
        self.config, self.model = config, model

    def encode(self, x: Tensor) -> Tensor:
        return self.model.encode(x).latent

    def decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z).sample


@torch.no_grad()
def test_tiles_agree_with_diffusers() -> None:
    config = reduced(WHOLE, 1, 16)
    ours, reference = pair(config, random_state(config))
    tiling, theirs = Tiling(tile=64, overlap=32), Through(config, reference)
    images = torch.rand(1, 3, 96, 160) * 2 - 1
    latents = tiled_encode(theirs, images, tiling)
    assert_same(tiled_encode(ours, images, tiling), latents)
    found = tiled_decode(ours, latents, tiling)
    assert_same(found, tiled_decode(theirs, latents, tiling))

    # Its own tiling, of the same tiles: its ramp over an overlap of 32 pixels begins half a pixel before ours, so
    # the two differ by a 64th of what neighbouring tiles disagree by. Its last, narrow tiles are left out.
    first, second = (reference.decode(latents[..., :2, i : i + 2]).sample for i in (0, 1))
    disagreement = (first[..., :32, 32:] - second[..., :32, :32]).abs().max()
    reference.enable_tiling(64, 64, 32, 32)
    expected = reference.decode(latents).sample
    assert_same(found[..., :32, :32], expected[..., :32, :32])
    difference = (found - expected)[..., :32, 32:64].abs().max()
    assert 0 < difference < 1.001 * disagreement / 64


@torch.no_grad()
def test_a_run_scales_latents_as_the_pipelines_of_diffusers_do() -> None:
    """Their transformers see latents * scaling_factor; ours does, and decoding undoes it."""
    config = reduced(WHOLE, 1, 16)
    ours, reference = pair(config, random_state(config))
    bundle: Any = SimpleNamespace(autoencoder=ours, device=torch.device("cpu"), dtype=torch.float32)
    stages = Stages(bundle)
    image = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8)
    pixels = image.permute(2, 0, 1)[None] / 127.5 - 1
    scaled = reference.encode(pixels).latent * reference.config.scaling_factor
    assert_same(stages.encode(image), scaled)
    decoded = reference.decode(scaled / reference.config.scaling_factor).sample
    expected = ((decoded + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1)
    found = stages.decode(scaled[None], Clip(0, 0, 1))
    assert (found - expected).abs().max() <= 0.51  # rounded to whole numbers
