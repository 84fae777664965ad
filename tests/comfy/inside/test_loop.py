"""A loop made of expanding nodes, as newer ComfyUI brings: our MODEL and memory go round in it.

0.3.64 has no Start Loop and End Loop, but the loop nodes that ComfyUI's own tests use; they work by the same
mechanism, nodes that expand into copies of what lies between them.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_setup import Graph, chain, conditioning, node

import nodes as comfy_nodes_module

LOOPS = Path(os.environ["COMFYUI_PATH"]) / "tests" / "execution" / "testing_nodes" / "testing-pack"
CLIP, ROUNDS = 16, 2


@pytest.fixture
def loops(_loaded: None) -> None:
    if not LOOPS.is_dir():
        pytest.skip(f"this ComfyUI has no loop nodes in {LOOPS}")
    assert asyncio.run(comfy_nodes_module.load_custom_node(str(LOOPS), set()))


def sampler(model: list[Any], positive: list[Any], frames: int, **inputs: Any) -> dict[str, Any]:
    numbers = {"seed": 5, "steps": 1, "schedule": "model", "audio_scale": 1.0, "portrait_scale": 1.0}
    return node("LetsTalkLongVideoSampler", model=model, positive=positive, max_frames=frames, **numbers, **inputs)


def decoded(graph: Graph, latents: list[Any], run_graph: Any) -> torch.Tensor:
    graph["frames"] = node("VAEDecode", samples=latents, vae=["vae", 0])
    graph["shown"] = node("PreviewImage", images=["frames", 0])
    frames: torch.Tensor = run_graph(graph)["frames"][0][0]
    return frames


def test_model_and_memory_go_round_a_loop(loops: None, run_graph: Any) -> None:
    """Each round makes one clip and hands its memory to the next; the last clip is that of one long run."""
    speech = chain(256, seconds=2.0)
    once = {**speech, "sampled": sampler(["model", 0], ["positive", 0], CLIP * ROUNDS)}
    expected = decoded(once, ["sampled", 0], run_graph)
    looped = {
        **speech,
        "open": node("TestForLoopOpen", remaining=ROUNDS, initial_value2=["model", 0], initial_value3=0),
        "positive": conditioning(["open", 4]),
        "sampled": sampler(["open", 3], ["positive", 0], CLIP, memory=["open", 2]),
        "next": node("TestIntMathOperation", a=["open", 4], b=CLIP, operation="add"),
        "close": node(
            "TestForLoopClose",
            flow_control=["open", 0],
            initial_value1=["sampled", 1],
            initial_value2=["open", 3],
            initial_value3=["next", 0],
            initial_value4=["sampled", 0],
        ),
    }
    found = decoded(looped, ["close", 3], run_graph)
    assert torch.equal(found, expected[-CLIP:])
