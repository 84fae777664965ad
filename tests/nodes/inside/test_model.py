"""Load DiT: a MODEL that ComfyUI samples, patches and moves about, with the numbers of the standalone pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import folder_paths
import pytest
import torch
from model_setup import Setup, count_passes, load_setup, make_setup, sample
from safetensors.torch import save_file
from torch import Tensor

CLOSE = {"rtol": 1e-5, "atol": 2e-5}


@pytest.fixture
def setup(sub: Callable[[str], Any], tmp_path: Path) -> Setup:
    return make_setup(sub, tmp_path, portrait_residual=True, residual_scale=0.4)


def basic(setup: Setup, patcher: Any = None) -> Any:
    """A native guider without guidance."""
    guider = setup.samplers.CFGGuider(patcher or setup.patcher)
    guider.set_conds(setup.positive, setup.negative)
    return guider


def guided(setup: Setup, patcher: Any = None) -> Any:
    guider = basic(setup, patcher)
    guider.set_cfg(2.0)
    return guider


def changed(found: Tensor, other: Tensor) -> bool:
    return bool(found.isfinite().all()) and float((found - other).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"portrait_residual": True, "residual_scale": 0.4},
        {"portrait_residual": True, "prediction": "epsilon"},
        {"prediction": "epsilon", "learned_variance": True},
        {"prediction": "v", "portrait_fusion": "siamese", "audio_fusion": "symbiotic"},
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_a_clip_equals_the_standalone_one(
    sub: Any, tmp_path: Path, comfy_nodes: Any, changes: dict[str, Any]
) -> None:
    """Native SamplerCustomAdvanced and euler, with the noise of core. ComfyUI gets a prediction and makes it the
    denoised sample again, which rounds relative to the noisy one: 160 times larger where a DDPM table starts.
    """
    setup = make_setup(sub, tmp_path, **changes)
    noise = type("Noise", (), {"seed": 7, "generate_noise": lambda self, latent: setup.noise})()
    latent = {"samples": torch.zeros_like(setup.noise)}
    sigmas = setup.sigmas(4)
    (sampler,) = comfy_nodes["KSamplerSelect"]().get_sampler("euler")
    out, _ = comfy_nodes["SamplerCustomAdvanced"]().sample(noise, basic(setup), sampler, sigmas, latent)
    expected = setup.standalone(sigmas)
    flow = setup.dit.config.prediction == "flow"
    torch.testing.assert_close(out["samples"], expected, rtol=1e-5, atol=2e-5 if flow else 5e-4)


def test_the_demo_model_samples_the_same_clip(sub: Any) -> None:
    setup = load_setup(sub, sub("letstalk_core.models").DEMO_FOLDER / "dit.safetensors", (4, 4))
    found = sample(setup, setup.guider.make_guider(setup.patcher, setup.positive, 2.0, 1.0))
    torch.testing.assert_close(found, setup.standalone(setup.sigmas(), 2.0, 1.0), **CLOSE)
    latent_format = setup.patcher.model.latent_format
    assert len(latent_format.latent_rgb_factors) == 32 and len(latent_format.latent_rgb_factors_bias) == 3
    assert setup.patcher.model.dit_config.audio_guidance == 2.0


def test_keeping_what_the_conditions_give_changes_nothing(setup: Setup) -> None:
    patcher = setup.patcher.clone()
    patcher.wrappers.clear()
    dit, encoded = setup.patcher.model.diffusion_model, []
    encode = dit.encode_conditions
    dit.encode_conditions = lambda *args: encoded.append(1) or encode(*args)
    kept = sample(setup, guided(setup), sigmas=setup.sigmas(3))
    assert len(encoded) == 1
    anew = sample(setup, guided(setup, patcher), sigmas=setup.sigmas(3))
    assert len(encoded) == 4 and torch.equal(kept, anew)


def test_memory_frame_and_gains_come_from_the_conditioning(setup: Setup) -> None:
    before = sample(setup, basic(setup))
    for change in (
        {"letstalk_memory": torch.randn(1, 2, *setup.portrait.shape[1:])},
        {"letstalk_first_frame": 5},
        {"letstalk_audio_gain": 0.0},
        {"letstalk_portrait_gain": 0.0},
        {"reference_latents": [torch.randn_like(setup.portrait)]},  # 4-D is taken too
    ):
        guider = basic(setup)
        guider.set_conds([[slot, {**values, **change}] for slot, values in setup.positive], setup.negative)
        assert changed(sample(setup, guider), before), change


@pytest.mark.parametrize("weight_dtype", ["default", "bf16", "fp16", "fp8_e4m3fn", "fp8_e5m2"])
def test_weights_of_every_dtype_sample(sub: Any, tmp_path: Path, weight_dtype: str) -> None:
    model = sub("nodes.adapters.model")
    setup = make_setup(sub, tmp_path, portrait_residual=True, residual_scale=0.4)
    patcher = model.load_dit(setup.path, weight_dtype)
    stored = {p.dtype for p in patcher.model.diffusion_model.parameters()}
    assert stored == {model.WEIGHT_DTYPES[weight_dtype] or torch.float32}
    expected, found = sample(setup, basic(setup)), sample(setup, basic(setup, patcher))
    away = float((found - expected).norm() / expected.norm())
    # Rounding of the weights alone, computing is in float32 on the CPU: 2, 3, 7 and 10 bits of mantissa.
    assert away < {"default": 1e-6, "bf16": 0.02, "fp16": 0.003, "fp8_e4m3fn": 0.2, "fp8_e5m2": 0.4}[weight_dtype]


def lora(patcher: Any, keys: list[str], folder: Path) -> str:
    """A LoRA file for some layers, in ComfyUI's folder of LoRAs; returns its name."""
    layers, tensors = dict(patcher.model.named_modules()), {}
    for key in keys:
        rows, columns = layers[key].weight.flatten(1).shape
        tensors[f"{key}.lora_A.weight"] = torch.randn(2, columns) * 0.3
        tensors[f"{key}.lora_B.weight"] = torch.randn(rows, 2) * 0.3
    name = f"{folder.name}.safetensors"
    target = Path(folder_paths.get_folder_paths("loras")[0])
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / name)
    folder_paths.filename_list_cache.clear()
    return name


@pytest.mark.parametrize(
    "layer",
    [
        "blocks.0.temporal_attention.qkv",
        "blocks.1.feed_forward.conv_depth",
        "blocks.0.guide_attention.audio.key",
        "audio_projection.linear_2",
        "final.linear",
    ],
)
def test_a_lora_reaches_every_kind_of_layer(setup: Setup, tmp_path: Path, comfy_nodes: Any, layer: str) -> None:
    name = lora(setup.patcher, [f"diffusion_model.{layer}"], tmp_path)
    before = sample(setup, basic(setup))
    loader = comfy_nodes["LoraLoaderModelOnly"]()
    (patched,) = loader.load_lora_model_only(setup.patcher, name, 1.0)
    with_lora = sample(setup, basic(setup, patched))
    assert changed(with_lora, before)
    (off,) = loader.load_lora_model_only(setup.patcher, name, 0.0)
    assert torch.equal(sample(setup, basic(setup, off)), before)
    assert torch.equal(sample(setup, basic(setup, patched)), with_lora)


def test_a_partial_load_leaves_nothing_behind_and_samples_the_same(
    setup: Setup, tmp_path: Path, comfy_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["diffusion_model.blocks.0.temporal_attention.qkv", "diffusion_model.audio_projection.linear_2"]
    name = lora(setup.patcher, keys, tmp_path)
    (patched,) = comfy_nodes["LoraLoaderModelOnly"]().load_lora_model_only(setup.patcher, name, 1.0)
    expected = sample(setup, basic(setup, patched))
    mm.unload_all_models()
    patched.load(torch.device("cpu"), lowvram_model_memory=1, full_load=False)  # every weight is cast when used
    assert patched.model.model_lowvram and patched.model.lowvram_patch_counter == 2
    with monkeypatch.context() as patch:  # a CPU would be given the whole model
        patch.setattr(mm, "load_models_gpu", lambda *args, **kwargs: None)
        torch.testing.assert_close(sample(setup, basic(setup, patched)), expected, **CLOSE)
    patched.detach()
    patched.load(torch.device("meta"), lowvram_model_memory=int(1e15), full_load=False)
    left = {n for n, p in patched.model.diffusion_model.state_dict().items() if p.device.type != "meta"}
    assert left == set()


def test_a_model_that_was_unloaded_comes_back_the_same(setup: Setup, tmp_path: Path, comfy_nodes: Any) -> None:
    name = lora(setup.patcher, ["diffusion_model.final.linear"], tmp_path)
    (patched,) = comfy_nodes["LoraLoaderModelOnly"]().load_lora_model_only(setup.patcher, name, 1.0)
    plain, with_lora = sample(setup, basic(setup)), sample(setup, basic(setup, patched))
    for _ in range(2):
        mm.unload_all_models()
        assert torch.equal(sample(setup, basic(setup)), plain)
        assert torch.equal(sample(setup, basic(setup, patched)), with_lora)


def test_skip_layer_guidance_skips_the_block(setup: Setup, comfy_nodes: Any) -> None:
    (patched,) = (
        comfy_nodes["SkipLayerGuidanceDiT"]
        .execute(setup.patcher, scale=2.0, start_percent=0.0, end_percent=1.0, double_layers="1", single_layers="")
        .args
    )
    with count_passes(patched) as passes:
        found = sample(setup, guided(setup, patched))
    assert passes == [2, 1, 2, 1] and changed(found, sample(setup, guided(setup)))
    with_ours = setup.guider.make_guider(patched, setup.positive, 2.0, 1.0)
    torch.testing.assert_close(sample(setup, with_ours), found, **CLOSE)


def test_a_patch_may_run_the_block_itself(setup: Setup) -> None:
    patched, seen = setup.patcher.clone(), []

    def patch(args: dict[str, Any], extra: dict[str, Any]) -> Any:
        seen.append((args["img"].shape, args["txt"].shape, args["vec"].shape, args["pe"]))
        return extra["original_block"]({k: args[k] for k in ("img", "txt", "vec", "pe")})

    patched.set_model_patch_replace(patch, "dit", "double_block", 0)
    assert torch.equal(sample(setup, basic(setup, patched)), sample(setup, basic(setup)))
    assert seen == [((1, 5, 16, 32), (1, 3, 16, 32), (1, 32), None)] * 2


def test_attention_may_be_overridden(setup: Setup) -> None:
    patched, heads = setup.patcher.clone(), set()

    def override(attention: Any, *args: Any, **kwargs: Any) -> Any:
        heads.add(args[3])
        return attention(*args, **kwargs)

    patched.model_options["transformer_options"]["optimized_attention_override"] = override
    torch.testing.assert_close(sample(setup, basic(setup, patched)), sample(setup, basic(setup)), **CLOSE)
    assert heads == {2, 32}  # to the speech, and along time: one for each head of each position


def test_easy_cache_skips_steps_and_stays_near(setup: Setup, comfy_nodes: Any) -> None:
    sigmas = setup.sigmas(12)
    plain = sample(setup, guided(setup), sigmas=sigmas)
    for threshold, fewer in ((0.0, False), (1e9, True)):
        (patched,) = (
            comfy_nodes["EasyCache"]
            .execute(setup.patcher, reuse_threshold=threshold, start_percent=0.1, end_percent=0.95, verbose=False)
            .args
        )
        found = sample(setup, guided(setup, patched), sigmas=sigmas)
        assert found.isfinite().all()
        assert torch.equal(found, plain) != fewer


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_compute_dtype_may_be_chosen(setup: Setup, comfy_nodes: Any, dtype: str) -> None:
    (patched,) = comfy_nodes["ModelComputeDtype"]().patch(setup.patcher, dtype)
    plain, found = sample(setup, basic(setup)), sample(setup, basic(setup, patched))
    assert float((found - plain).norm() / plain.norm()) < (0.03 if dtype == "bf16" else 1e-6)
    assert torch.equal(sample(setup, basic(setup)), plain)


def test_other_native_patches_run(setup: Setup, comfy_nodes: Any) -> None:
    (rescaled,) = comfy_nodes["RescaleCFG"]().patch(setup.patcher, 0.7)
    (shifted,) = comfy_nodes["ModelSamplingSD3"]().patch(rescaled, 3.0)
    assert changed(sample(setup, guided(setup, shifted)), sample(setup, guided(setup)))
    ours = setup.guider.make_guider(shifted, setup.positive, 2.0, 1.0)
    torch.testing.assert_close(sample(setup, ours), sample(setup, guided(setup, shifted)), **CLOSE)


def test_a_whole_ksampler_runs(setup: Setup, comfy_nodes: Any) -> None:
    latent = {"samples": torch.zeros_like(setup.noise)}
    (out,) = comfy_nodes["KSampler"]().sample(
        setup.patcher, 1, 3, 1.5, "dpmpp_2m", "simple", setup.positive, setup.negative, latent, 1.0
    )
    assert out["samples"].shape == setup.noise.shape and out["samples"].isfinite().all()


def test_what_does_not_belong_together_is_named(sub: Any, setup: Setup) -> None:
    other = sub("letstalk_core.audio.track").AudioTrack(torch.zeros(9, 2, 7), 25.0)

    def run(change: dict[str, Any]) -> None:
        guider = basic(setup)
        guider.set_conds([[slot, {**values, **change}] for slot, values in setup.positive], setup.negative)
        sample(setup, guider)

    for change, message in (
        ({"letstalk_audio": None}, "positive: holds no speech and portrait; connect LetsTalk Conditioning"),
        ({"reference_latents": [torch.zeros(1, 8, 4, 4)]}, "positive: its portrait has 8 latent channels"),
        (
            {"reference_latents": [torch.zeros(1, 4, 4, 6)]},
            "portrait latent is 4 x 6 and the clip's 4 x 4",
        ),
        ({"reference_latents": [torch.zeros(1, 4, 3, 4, 4)]}, "encode one picture, not a video"),
        (
            {"letstalk_audio": other},
            "2 layers of 7",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run(change)


def test_files_that_do_not_fit_are_refused_by_name(sub: Any, setup: Setup, tmp_path: Path) -> None:
    load_dit = sub("nodes.adapters.model").load_dit
    checkpoint = sub("letstalk_core.checkpoint")
    error = sub("letstalk_core.errors").CheckpointError
    header = checkpoint.read_header(setup.path)
    parts = {n: (c, checkpoint.load_tensors(setup.path, prefix=f"{n}.")) for n, c in header.parts.items()}

    def refused(message: str, **changes: Any) -> None:
        path = tmp_path / "bad.safetensors"
        checkpoint.save_checkpoint(path, {**parts, **changes})
        with pytest.raises(error, match=message):
            load_dit(path, "default")

    config, tensors = parts["dit"]
    without = {k: v for k, v in tensors.items() if k != "final.linear.bias"}
    refused("1 tensors missing: final.linear.bias", dit=(config, without))
    refused("1 tensors unexpected: more", dit=(config, {**tensors, "more": torch.zeros(1)}))
    wrong = {**tensors, "final.linear.bias": torch.zeros(3)}
    refused(r"final.linear.bias is \[3\], needs \[4\]", dit=(config, wrong))
    config, tensors = parts["audio_projection"]
    refused("unexpected: more", audio_projection=(config, {**tensors, "more": torch.zeros(1)}))
    checkpoint.save_checkpoint(tmp_path / "half.safetensors", {"dit": parts["dit"]})
    with pytest.raises(error, match="not a model of kind 'audio_projection'"):
        load_dit(tmp_path / "half.safetensors", "default")
    with pytest.raises(ValueError, match="weight_dtype: 'int4' is unknown"):
        load_dit(setup.path, "int4")


def test_memory_needed_grows_with_the_clip(setup: Setup) -> None:
    need = setup.patcher.model.memory_required
    one = need([1, 4, 16, 8, 8])
    assert need([2, 4, 16, 8, 8]) == 2 * one and need([1, 4, 16, 16, 16]) > 3.9 * one
    assert need([1, 4, 8, 8]) < one
