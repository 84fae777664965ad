"""Cancelled again and again: the next run works, and nothing is left of the others."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import comfy.model_management
import psutil
import pytest
import torch
from sampling_setup import prepare, temp_files

CYCLES = 50
MIB = 2**20
# As a file: the root of the repository is never on sys.path here.
PASSES = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "passes.py"))


def interrupting_in(kit: Any) -> Any:
    """Interrupts ComfyUI in a chosen pass of the network or of the decoder."""
    networks = kit.patcher.model.diffusion_model, kit.vae.first_stage_model.decoder
    return PASSES["Passes"](comfy.model_management.interrupt_current_processing, *networks)


def footprint() -> dict[str, int]:
    found = PASSES["footprint"]()
    del found["tensors"]  # ComfyUI keeps some for its next run
    return {**found, "loaded models": len(comfy.model_management.current_loaded_models)}


def test_fifty_cancelled_runs_leave_nothing_and_spoil_nothing(kit: Any, base: Path) -> None:
    def latents() -> torch.Tensor:
        return kit.render.render_latents(prepare(kit, 37, steps=2), "whole", kit.vae)

    wanted = latents()
    interrupting = interrupting_in(kit)
    interrupting.arm(0)
    latents()
    total = interrupting.passes
    files = temp_files(base)

    def cancel(cycle: int) -> None:
        interrupting.arm(2 + cycle % (total - 1))  # 1 is the decoder's look at the portrait
        run = prepare(kit, 37, steps=2)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            if cycle % 2:
                kit.render.render_video(run, kit.vae, node_id="cancelled", unfinished="start anew")
            else:
                kit.render.render_latents(run, "cancelled", kit.vae)
        assert interrupting.after <= 1, "the run went on"

    for cycle in range(5):
        cancel(cycle)
    before, memory = footprint(), psutil.Process().memory_info().rss
    for cycle in range(CYCLES):
        cancel(cycle)
    assert footprint() == before
    assert psutil.Process().memory_info().rss - memory < 64 * MIB
    assert temp_files(base) <= files | {name for name in temp_files(base) if "_clip" in name}
    assert kit.patcher.object_patches == {} and not kit.patcher.model.diffusion_model.training
    interrupting.arm(0)
    assert torch.equal(latents(), wanted)
