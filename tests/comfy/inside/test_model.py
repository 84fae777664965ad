"""Load DiT: a MODEL that ComfyUI samples with the numbers of the standalone pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_setup import SEED, Setup, basic, changed, guided, make_setup, sample


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


def test_keeping_what_the_conditions_give_changes_nothing(setup: Setup) -> None:
    patcher = setup.patcher.clone()
    patcher.wrappers.clear()
    dit, encoded = setup.patcher.model.diffusion_model, []
    encode = dit.encode_conditions
    dit.encode_conditions = lambda *args, **options: encoded.append(1) or encode(*args, **options)
    kept = sample(setup, guided(setup), sigmas=setup.sigmas(3))
    assert len(encoded) == 1
    anew = sample(setup, guided(setup, patcher), sigmas=setup.sigmas(3))
    assert len(encoded) == 4 and torch.equal(kept, anew)


def test_movement_comes_from_the_conditioning_and_without_a_seed_from_the_samplers(setup: Setup) -> None:
    def moved(**values: Any) -> Any:
        guider = basic(setup)
        guider.set_conds([[slot, {**own, **values}] for slot, own in setup.positive], setup.negative)
        return sample(setup, guider)

    usual = moved()
    assert torch.equal(moved(letstalk_movement_seed=SEED, letstalk_movement=1.0), usual)
    for change in ({"letstalk_movement": 0.0}, {"letstalk_movement_seed": SEED + 1}):
        assert not torch.equal(moved(**change), usual), change


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


def test_what_does_not_belong_together_is_named(sub: Any, setup: Setup) -> None:
    other = sub("letstalk_core.media.audio.track").AudioTrack(torch.zeros(9, 2, 7), 25.0)

    def run(change: dict[str, Any]) -> None:
        guider = basic(setup)
        guider.set_conds([[slot, {**values, **change}] for slot, values in setup.positive], setup.negative)
        sample(setup, guider)

    for change, message in (
        ({"letstalk_audio": None}, "positive: holds no speech and portrait; connect LetsTalk Conditioning"),
        ({"reference_latents": [torch.zeros(1, 8, 4, 4)]}, "positive: its portrait has 8 latent channels"),
        ({"reference_latents": [torch.zeros(1, 4, 4, 6)]}, "portrait latent is 4 x 6 and the clip's 4 x 4"),
        ({"reference_latents": [torch.zeros(1, 4, 3, 4, 4)]}, "encode one picture, not a video"),
        ({"letstalk_audio": other}, "2 layers of 7"),
    ):
        with pytest.raises(ValueError, match=message):
            run(change)


def test_files_that_do_not_fit_are_refused_by_name(sub: Any, setup: Setup, tmp_path: Path) -> None:
    load_dit, checkpoint = sub("nodes.adapters.model").load_dit, sub("letstalk_core.networks.checkpoint")
    error = sub("letstalk_core.errors").CheckpointError
    header, path = checkpoint.read_header(setup.path), tmp_path / "bad.safetensors"
    parts = {n: (c, checkpoint.load_tensors(setup.path, prefix=f"{n}.")) for n, c in header.parts.items()}
    for name, (config, tensors) in parts.items():
        more = {**tensors, "more": torch.zeros(1)}
        checkpoint.save_checkpoint(path, {**parts, name: (config, more)})
        with pytest.raises(error, match="1 tensors unexpected: more"):
            load_dit(path, "default")
    checkpoint.save_checkpoint(path, {"dit": parts["dit"]})
    with pytest.raises(error, match="not a model of kind 'audio_projection'"):
        load_dit(path, "default")
    with pytest.raises(ValueError, match="weight_dtype: 'int4' is unknown"):
        load_dit(setup.path, "int4")


def test_memory_needed_grows_with_the_clip(setup: Setup) -> None:
    need = setup.patcher.model.memory_required
    one = need([1, 4, 16, 8, 8])
    assert need([2, 4, 16, 8, 8]) == 2 * one and need([1, 4, 16, 16, 16]) > 3.9 * one
    assert need([1, 4, 8, 8]) < one
