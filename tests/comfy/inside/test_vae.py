"""DC-AE as the native VAE."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import pytest
import torch
from graph_setup import DEMO_FOLDER
from safetensors.torch import save_file

DEMO = DEMO_FOLDER / "autoencoder.safetensors"


@pytest.fixture
def vae(sub: Any) -> Any:
    return sub("nodes.adapters.vae").load_vae(DEMO)


@pytest.fixture
def core(sub: Any) -> Any:
    return sub("letstalk_core.networks.load").load_model(DEMO)


@pytest.fixture
def faces(sub: Any) -> torch.Tensor:
    """IMAGE of four bundled portraits at 128x128."""
    portraits = sorted((DEMO_FOLDER / "portraits").glob("*.png"))
    pictures = [sub("letstalk_core.media.portrait.image").load_portrait(path) for path in portraits]
    fitted = [sub("letstalk_core.media.portrait.crop").fit_to(picture, (128, 128)) for picture in pictures]
    return torch.stack(fitted).float() / 255


def test_latents_are_scaled_and_equal_those_of_the_library(vae: Any, core: Any, faces: torch.Tensor) -> None:
    latents = vae.encode(faces)
    expected = core.encode_frames(faces.movedim(-1, 1) * 2 - 1) * core.config.scaling_factor
    assert tuple(latents.shape) == (1, 64, 4, 4, 4)
    torch.testing.assert_close(latents[0].movedim(1, 0), expected, rtol=1e-5, atol=1e-5)
    images = vae.decode(latents)
    decoded = core.decode_frames(expected / core.config.scaling_factor).movedim(1, -1)
    assert tuple(images.shape) == (1, 4, 128, 128, 3)
    torch.testing.assert_close(images[0], (decoded / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-4)
    assert (images[0] - faces).abs().mean() < 0.05


def test_latents_of_other_models_are_named(vae: Any, comfy_nodes: dict[str, Any], sub: Any) -> None:
    stable_diffusion = {"samples": torch.zeros(1, 4, 8, 8)}
    error = sub("letstalk_core.errors").ConfigError
    with pytest.raises(error, match=r"samples: has shape \[1, 4, 8, 8\], this VAE decodes latents of 64"):
        comfy_nodes["VAEDecode"]().decode(vae, stable_diffusion)
    with pytest.raises(error, match="of 64 channels"):
        comfy_nodes["VAEDecodeTiled"]().decode(vae, stable_diffusion, 64, 32)


@pytest.mark.parametrize("tiled", [False, True])
def test_a_grey_picture_is_encoded_as_one_in_colour(vae: Any, tiled: bool) -> None:
    grey, encode = torch.rand(1, 64, 64, 1), vae.encode_tiled if tiled else vae.encode
    assert torch.equal(encode(grey), encode(grey.expand(-1, -1, -1, 3)))


def test_native_nodes_encode_and_decode_in_4d_and_5d_whole_and_in_tiles(
    vae: Any, comfy_nodes: dict[str, Any], faces: torch.Tensor
) -> None:
    def node(name: str) -> Any:
        return comfy_nodes[name]()

    (latent,) = node("VAEEncode").encode(vae, faces)
    (images,) = node("VAEDecode").decode(vae, latent)
    assert tuple(images.shape) == (4, 128, 128, 3)
    flat = {"samples": latent["samples"][0].movedim(1, 0)}
    torch.testing.assert_close(node("VAEDecode").decode(vae, flat)[0], images)
    (tiled,) = node("VAEDecodeTiled").decode(vae, latent, 64, 32)
    (flat_tiled,) = node("VAEDecodeTiled").decode(vae, flat, 64, 32)
    torch.testing.assert_close(flat_tiled, tiled)
    assert (tiled - images).abs().mean() < 0.05
    (encoded,) = node("VAEEncodeTiled").encode(vae, faces, 64, 32)
    assert encoded["samples"].shape == latent["samples"].shape


def test_many_frames_go_through_in_chunks(vae: Any, sub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = sub("nodes.adapters.vae")
    latents = torch.randn(1, 64, 5, 4, 4)
    whole = vae.decode(latents)
    monkeypatch.setattr(adapter, "CHUNK_PIXELS", 2 * 128 * 128)
    sizes = []
    vae.first_stage_model.decoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    torch.testing.assert_close(vae.decode(latents), whole, rtol=1e-5, atol=1e-5)
    assert sizes == [2, 2, 1]


def test_the_memory_estimate_is_that_of_a_chunk(vae: Any) -> None:
    vae.device = torch.device("cuda")  # results are kept on the CPU then
    few = vae.memory_used_decode((1, 64, 8, 8, 8), torch.float32)
    many = vae.memory_used_decode((1, 64, 800, 8, 8), torch.float32)
    assert few < many < 1.5 * few
    assert vae.memory_used_decode((1, 64, 8, 8), torch.float32) < few
    assert vae.memory_used_encode((1, 3, 1, 512, 512), torch.float32) > 512 * 512 * 4 * 3


def test_running_out_of_memory_falls_back_to_tiles(vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = torch.randn(1, 64, 2, 16, 16) * 0.1
    decode = type(vae.first_stage_model).decode
    sizes = []

    def out_of_memory(model: Any, z: torch.Tensor) -> torch.Tensor:
        sizes.append(z.shape[-1])
        if z.shape[-1] > 8:
            raise mm.OOM_EXCEPTION("no memory")
        return decode(model, z)

    monkeypatch.setattr(type(vae.first_stage_model), "decode", out_of_memory)
    assert tuple(vae.decode(latents).shape) == (1, 2, 512, 512, 3)
    assert sizes[0] == 16 and max(sizes[1:]) == 8


@pytest.mark.parametrize("stages", [6, 7])
def test_public_formats_and_factors_load(stages: int, sub: Any, tmp_path: Path) -> None:
    convert, presets = sub("letstalk_core.networks.autoencoder.convert"), sub("letstalk_core.networks.presets")
    fields = asdict(presets.AUTOENCODER["demo"])
    for side in ("encoder", "decoder"):
        fields |= {
            f"{side}_block_types": ("ResBlock",) * stages,
            f"{side}_layers_per_block": (0,) + (1,) * (stages - 1),
            f"{side}_block_out_channels": (8,) * (stages - 1) + (32,),
            f"{side}_qkv_multiscales": ((),) * stages,
        }
    fields |= {"decoder_norm_types": ("rms_norm",) * stages, "decoder_act_fns": ("silu",) * stages}
    fields |= {"latent_channels": 16, "scaling_factor": 0.4, "latent_rgb_factors": (), "latent_rgb_bias": ()}
    config = sub("letstalk_core.networks.configs").AutoencoderConfig(**fields)
    model = sub("letstalk_core.networks.autoencoder.dc_ae").AutoencoderDC(config)
    model.init_weights()
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    (tmp_path / "config.json").write_text(json.dumps(convert.config_to_diffusers(config)))
    for name, weights in (("diffusers", tensors), ("original", convert.to_original(tensors, config))):
        path = tmp_path / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in weights.items()}, path)
        vae = sub("nodes.adapters.vae").load_vae(path)
        side = 2**stages
        latents = vae.encode(torch.rand(1, side, side, 3))
        assert tuple(latents.shape) == (1, 16, 1, 2, 2)
        assert tuple(vae.decode_tiled(latents, tile_x=0, tile_y=1, overlap=1).shape) == (1, 1, side, side, 3)


def test_all_of_it_can_leave_the_cpu_and_come_back(vae: Any) -> None:
    vae.patcher.load(torch.device("meta"), full_load=True)
    assert {p.device.type for p in vae.first_stage_model.parameters()} == {"meta"}


def test_every_layer_runs_when_no_weight_fits_on_the_device(vae: Any) -> None:
    """As with --lowvram, on a device that computes nothing but insists on where tensors lie."""
    vae.patcher.load(torch.device("meta"), lowvram_model_memory=1, full_load=False)
    model = vae.first_stage_model
    assert "cpu" in {p.device.type for p in model.parameters()}
    model.output_device = torch.device("meta")
    latents = model.encode(torch.empty(1, 3, 2, 64, 64, device="meta"))
    assert tuple(model.decode(latents).shape) == (1, 3, 2, 64, 64)
