"""LoRA files of our MODEL: ComfyUI's own training node makes one, and that of `personalize` loads."""

from __future__ import annotations

import copy
import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import pytest
import torch
from model_setup import CLOSE, Setup, basic, changed, sample
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[3]
LORA = ROOT / "letstalk_research" / "training" / "lora.py"  # what `personalize --lora` learns with; torch alone
CHOICES = {
    "batch_size": 2,
    "grad_accumulation_steps": 1,
    "learning_rate": 0.02,
    "rank": 2,
    "optimizer": "AdamW",
    "loss_function": "MSE",
    "seed": 1,
    "training_dtype": "fp32",
    "lora_dtype": "fp32",
    "algorithm": "LoRA",
    "existing_lora": "[None]",
}


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_a_lora_is_trained_on_clips_saved_and_loaded(
    setup: Setup, comfy_nodes: Any, gradient_checkpointing: bool
) -> None:
    clips = setup.portrait.unsqueeze(2) + 0.5 * torch.randn(3, *setup.noise.shape[1:])
    before = sample(setup, basic(setup))
    trained, lora, losses, steps = comfy_nodes["TrainLoraNode"]().train(
        setup.patcher, {"samples": clips}, setup.positive * 3, steps=12, **CHOICES,
        gradient_checkpointing=gradient_checkpointing,
    )  # fmt: skip
    told = torch.tensor(losses["loss"])
    assert steps == 12 and told.isfinite().all() and told[-4:].mean() < told[:4].mean()
    assert changed(sample(setup, basic(setup, trained)), before)
    assert torch.equal(sample(setup, basic(setup)), before)

    comfy_nodes["SaveLoRANode"]().save(lora, "loras/mine", steps)
    (path,) = Path(folder_paths.get_output_directory(), "loras").glob("mine_12_steps_*.safetensors")
    assert all(key.startswith("diffusion_model.") for key in load_file(path))
    (loaded,) = comfy_nodes["LoraModelLoader"]().load_lora_model(setup.patcher, lora, 1.0)
    assert changed(sample(setup, basic(setup, loaded)), before)
    path.unlink()


def test_the_lora_of_personalize_makes_the_model_that_was_trained(setup: Setup, comfy_nodes: Any) -> None:
    research, tensors = SimpleNamespace(**runpy.run_path(str(LORA))), {}
    trained = dataclasses.replace(setup, dit=copy.deepcopy(setup.dit), projection=copy.deepcopy(setup.projection))
    for prefix, network in (("", trained.dit), ("audio_projection.", trained.projection)):
        research.add_lora(network, 2)
        for name, parameter in network.named_parameters():
            if name.endswith((".up", ".down")):  # as the file holds them
                parameter.data = (0.3 * torch.randn_like(parameter)).half().float()
        tensors |= research.lora_tensors(network, f"diffusion_model.{prefix}")
    file = Path(folder_paths.get_folder_paths("loras")[0], "presenter.safetensors")
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    folder_paths.filename_list_cache.clear()
    with torch.no_grad():
        wanted, before = trained.standalone(setup.sigmas()), sample(setup, basic(setup))
    (patched,) = comfy_nodes["LoraLoaderModelOnly"]().load_lora_model_only(setup.patcher, file.name, 1.0)
    assert len(patched.patches) == len(tensors) // 3 > 10  # no key was left over
    assert changed(wanted, before)
    torch.testing.assert_close(sample(setup, basic(setup, patched)), wanted, **CLOSE)
    file.unlink()
