"""ComfyUI's own training node trains our MODEL on a few clips, and its LoRA loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from model_setup import Setup, basic, changed, make_setup, sample
from safetensors.torch import load_file

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


@pytest.fixture
def setup(sub: Callable[[str], Any], tmp_path: Path) -> Setup:
    return make_setup(sub, tmp_path, portrait_residual=True, residual_scale=0.4)


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
