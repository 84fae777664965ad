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

import nodes as comfy_nodes_module

LOOPS = Path(os.environ["COMFYUI_PATH"]) / "tests" / "execution" / "testing_nodes" / "testing-pack"
DEMO = "demo (bundled)"
SPEECH = {"start_seconds": 0.0, "length_seconds": 2.0, "fps": 25.0, "silence_threshold": -60.0}
CLIP, ROUNDS = 16, 2
Graph = dict[str, dict[str, Any]]


@pytest.fixture
def loops(_loaded: None) -> None:
    if not LOOPS.is_dir():
        pytest.skip(f"this ComfyUI has no loop nodes in {LOOPS}")
    assert asyncio.run(comfy_nodes_module.load_custom_node(str(LOOPS), set()))


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def sampler(model: list[Any], positive: list[Any], frames: int, **inputs: Any) -> dict[str, Any]:
    numbers = {"seed": 5, "steps": 1, "schedule": "model", "audio_scale": 1.0, "portrait_scale": 1.0}
    return node("LetsTalkLongVideoSampler", model=model, positive=positive, max_frames=frames, **numbers, **inputs)


def common() -> Graph:
    """Up to the encoded portrait (6) and speech (7)."""
    return {
        "1": node("LetsTalkLoadDiT", model=DEMO, weight_dtype="default"),
        "2": node("LetsTalkLoadAutoencoder", autoencoder=DEMO),
        "3": node("LetsTalkLoadAudioEncoder", audio_encoder=DEMO),
        "4": node("LetsTalkLoadPortrait", image="ada (bundled demo portrait)"),
        "5": node("LetsTalkLoadSpeech", audio="hello (bundled demo speech)"),
        "6": node("LetsTalkEncodePortrait", image=["4", 0], vae=["2", 0], width=256, height=256),
        "7": node("LetsTalkEncodeAudio", audio=["5", 0], audio_encoder=["3", 0], **SPEECH),
    }


def conditioning(first_frame: Any) -> dict[str, Any]:
    return node(
        "LetsTalkConditioning", portrait=["6", 0], audio=["7", 0], first_frame=first_frame, clip_frames=CLIP
    )


def decoded(graph: Graph, latents: list[Any], run_graph: Any) -> torch.Tensor:
    graph["90"] = node("VAEDecode", samples=latents, vae=["2", 0])
    graph["91"] = node("PreviewImage", images=["90", 0])
    frames: torch.Tensor = run_graph(graph)["90"][0][0]
    return frames


def test_model_and_memory_go_round_a_loop(loops: None, run_graph: Any) -> None:
    """Each round makes one clip and hands its memory to the next; the last clip is that of one long run."""
    once = {**common(), "10": conditioning(0), "11": sampler(["1", 0], ["10", 0], CLIP * ROUNDS)}
    expected = decoded(once, ["11", 0], run_graph)
    looped = {
        **common(),
        "20": node("TestForLoopOpen", remaining=ROUNDS, initial_value2=["1", 0], initial_value3=0),
        "21": conditioning(["20", 4]),
        "22": sampler(["20", 3], ["21", 0], CLIP, memory=["20", 2]),
        "23": node("TestIntMathOperation", a=["20", 4], b=CLIP, operation="add"),
        "24": node(
            "TestForLoopClose",
            flow_control=["20", 0],
            initial_value1=["22", 1],
            initial_value2=["20", 3],
            initial_value3=["23", 0],
            initial_value4=["22", 0],
        ),
    }
    found = decoded(looped, ["24", 3], run_graph)
    assert torch.equal(found, expected[-CLIP:])
