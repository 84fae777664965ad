"""ComfyUI loads, moves, patches and compiles the MODEL of Load DiT as it does its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import folder_paths
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers import set_torch_compile_wrapper
from model_setup import CLOSE, Setup, basic, changed, count_passes, guided, make_setup, sample
from safetensors.torch import save_file


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


@pytest.mark.parametrize(("prediction", "kept"), [("flow", 1.0), ("epsilon", 1.0), ("v", 0.8)])
def test_what_a_wrapper_changes_in_x_reaches_the_network(
    sub: Callable[[str], Any], tmp_path: Path, prediction: str, kept: float
) -> None:
    """Twice the input inside the model, against twice the sample outside, where ComfyUI keeps `kept` of it."""
    setup, sigmas = make_setup(sub, tmp_path, prediction=prediction), torch.tensor([0.5, 0.0])

    def sampled(kind: str, factor: float) -> torch.Tensor:
        patched = setup.patcher.clone()
        patched.add_wrapper_with_key(kind, "test", lambda run, x, *args, **more: run(x * factor, *args, **more))
        return sample(setup, basic(setup, patched), sigmas=sigmas)

    inside, outside = (sampled(kind, 2.0) for kind in (WrappersMP.DIFFUSION_MODEL, WrappersMP.APPLY_MODEL))
    torch.testing.assert_close(inside, outside - kept * 0.5 * setup.noise, **CLOSE)
    plain = sample(setup, basic(setup), sigmas=sigmas)
    assert changed(inside, plain)
    assert torch.equal(sampled(WrappersMP.DIFFUSION_MODEL, 1.0), plain)


def test_a_wrapper_that_changes_the_shape_of_x_is_named(setup: Setup) -> None:
    patched = setup.patcher.clone()
    kind = WrappersMP.DIFFUSION_MODEL
    patched.add_wrapper_with_key(kind, "test", lambda run, x, *args, **more: run(x[:, :, :2], *args, **more))
    with pytest.raises(ValueError, match="model: a patch turned its input"):
        sample(setup, basic(setup, patched))


def test_noise_levels_of_another_kind_of_model_are_refused(setup: Setup) -> None:
    with pytest.raises(ValueError, match=r"sigmas: begin at 14\.61.*LetsTalk Sigmas"):
        sample(setup, basic(setup), sigmas=torch.tensor([14.6146, 1.0, 0.0]))


def test_a_video_smaller_than_the_model_was_trained_on_is_warned_of_once(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.portrait = setup.portrait[..., :2]
    for _ in range(2):
        sample(setup, basic(setup))
    assert sum("trained on 4 x 4" in record.getMessage() for record in caplog.records) == 1


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


def test_a_compiled_model_samples_the_same_without_graph_breaks(sub: Callable[[str], Any], tmp_path: Path) -> None:
    """As TorchCompileModel does it, but with Dynamo alone: inductor needs a compiler and minutes."""
    setup, graphs = make_setup(sub, tmp_path, depth=1), []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    patched, sigmas = setup.patcher.clone(), setup.sigmas(3)
    torch._dynamo.reset()
    set_torch_compile_wrapper(model=patched, backend=backend, fullgraph=True)
    found = sample(setup, guided(setup, patched), sigmas=sigmas)
    torch.testing.assert_close(found, sample(setup, guided(setup), sigmas=sigmas), **CLOSE)
    assert len(graphs) == 2  # the first step, and those that find the conditions in the cache
