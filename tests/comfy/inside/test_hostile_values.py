"""Values that no widget would let through, and cancelling inside a pass."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import comfy.model_management as mm
import pytest
import torch
from comfy_api.latest import io
from graph_setup import DEMO_FOLDER

Sub = Callable[[str], ModuleType]
SOCKET = object()  # never looked at: numbers are checked first


@pytest.fixture(scope="module")
def nodes(sub: Sub) -> list[Any]:
    found: list[Any] = asyncio.run(sub("nodes").LetsTalkExtension().get_node_list())
    return found


def usual(node: Any) -> dict[str, Any]:
    found = {entry.id: getattr(entry, "default", None) for entry in node.define_schema().inputs}
    for entry in node.define_schema().inputs:
        if found[entry.id] is None:
            found[entry.id] = "a file" if isinstance(entry, io.Combo.Input) else SOCKET
    return found


def hostile(entry: Any) -> list[Any]:
    """Values that are wrong for an input, by what its schema says of it."""
    if isinstance(entry, (io.Int.Input, io.Float.Input)):
        odd = [float("nan"), float("inf"), -float("inf"), 1e308, entry.min - 1, entry.max + 1, "7", True, [1]]
        odd = [*odd[:-1], ["7"], [1.0, -1.0]] if entry.id.endswith("_scale") else odd  # may be lists
        return [*odd, 1.5] if isinstance(entry, io.Int.Input) else odd
    if isinstance(entry, io.Boolean.Input):
        return ["yes", 2, float("nan")]
    if isinstance(entry, io.Combo.Input):
        return [7, ["a"]]
    return [7, "a\0b"] if isinstance(entry, io.String.Input) else []


def test_every_node_refuses_every_value_that_its_schema_excludes(
    nodes: list[Any], sub: Sub, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal, tried = sub("letstalk_core.errors").LetsTalkError, 0
    for node in nodes:
        listed = node.define_schema().is_input_list  # then every input comes in a list

        def wired(values: dict[str, Any], listed: bool = listed) -> dict[str, Any]:
            return {k: [v] for k, v in values.items()} if listed else values

        for entry in node.define_schema().inputs:
            values = hostile(entry) + ([] if entry.optional or not hostile(entry) else [None])
            for value in values:
                tried += 1
                with pytest.raises(refusal, match=rf"^{entry.id}: "):
                    node.execute(**wired({**usual(node), entry.id: value}))
    assert tried > 300
    with capsys.disabled():
        print(f"{tried} values refused")  # read by benchmarks/soak/tested.py


def test_what_a_schema_allows_reaches_the_node(nodes: list[Any]) -> None:
    conditioning = next(n for n in nodes if n.__name__ == "LetsTalkConditioning")
    for movement in (0, 0.0, 2.0, 1):
        with pytest.raises(TypeError):  # of the socket, which is looked at next
            conditioning.execute(SOCKET, SOCKET, first_frame=0, clip_frames=1024, movement=movement)


@pytest.mark.parametrize("rate", [0, -16000, float("nan"), 1, 10**9, None, "16000"])
def test_sound_that_claims_an_absurd_rate_is_refused(rate: Any, nodes: list[Any], sub: Sub) -> None:
    encode = next(n for n in nodes if n.__name__ == "LetsTalkEncodeAudio")
    numbers = {"fps": 25.0, "silence_threshold": -60.0, "start_seconds": 0.0, "length_seconds": 0.0}
    sound = {"waveform": torch.zeros(1, 1, 16000), "sample_rate": rate}
    with pytest.raises(sub("letstalk_core.errors").MediaError, match="samples a second"):
        encode.execute(audio=sound, audio_encoder=SOCKET, **numbers)


def test_networks_stop_between_layers_when_the_user_cancels(sub: Sub) -> None:
    networks = [
        sub("nodes.adapters.model").load_dit(DEMO_FOLDER / "dit.safetensors").model.diffusion_model,
        sub("nodes.adapters.vae").load_vae(DEMO_FOLDER / "autoencoder.safetensors").first_stage_model,
        sub("nodes.adapters.audio").load_audio_encoder(DEMO_FOLDER / "audio_encoder.safetensors").model,
    ]
    for network in networks:
        layers = [m for m in network.modules() if not list(m.children()) and list(m.parameters())]
        assert len(layers) > 10
        for layer in layers:
            mm.interrupt_current_processing()
            with pytest.raises(mm.InterruptProcessingException):
                layer(torch.zeros(1))
            assert not mm.processing_interrupted()


def test_a_pass_of_a_network_answers_within_a_layer(sub: Sub) -> None:
    progress = sub("nodes.adapters.progress")
    reached: list[int] = []

    class Slow(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            reached.append(len(reached))
            if len(reached) == 3:
                threading.Thread(target=mm.interrupt_current_processing).start()
                while not mm.processing_interrupted():
                    time.sleep(0.001)
            return super().forward(x)

    network = progress.interruptible(torch.nn.Sequential(*(Slow(2, 2) for _ in range(50))))
    with pytest.raises(mm.InterruptProcessingException):
        network(torch.zeros(1, 2))
    assert reached == [0, 1, 2]
