"""The example workflows as graphs to run, and as the browser would queue them.

`ui_to_api` is written from the frontend's rules alone and shares no code with scripts/make_workflows.py, whose two
outputs it compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.comfy.server import ComfyServer
from tests.end_to_end.media import Video, read_video

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
FPS = 25
FRAMES = 32  # of a shortened graph: two clips
START_SECONDS = 0.4  # in the recording, after its silence
CUT = 16  # the frame where a second sampler begins
STEPS = 3
NOTES = {"Note", "MarkdownNote"}
MUTED, BYPASSED = 2, 4
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SEEDS = {"seed", "noise_seed"}


def definitions(info: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, type, options) of each input, in the order of the node."""
    for part in ("required", "optional"):
        for name in info["input_order"].get(part, ()):
            spec = info["input"][part][name]
            yield name, spec[0], spec[1] if len(spec) > 1 else {}


def widget_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Widget name -> saved value. Every widget has a value and every value a widget."""
    values = iter(node["widgets_values"])
    found = {}
    for name, kind, options in definitions(info):
        if (not isinstance(kind, list) and kind not in WIDGETS) or options.get("forceInput"):
            continue
        found[name] = next(values)
        if kind == "INT" and options.get("control_after_generate", name in SEEDS):
            assert next(values) in ("fixed", "increment", "decrement", "randomize"), (node["type"], name)
    left = list(values)
    assert not left, f"{node['type']}: values without a widget: {left}"
    return found


def check_links(workflow: dict[str, Any]) -> None:
    """Both ends of every link know of it, and nothing else is linked."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, output, target, slot, kind in workflow["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == number
        assert nodes[source]["outputs"][output]["type"] == kind
    ends = [i["link"] for n in nodes.values() for i in n["inputs"] if i["link"] is not None]
    starts = [number for n in nodes.values() for o in n["outputs"] for number in o["links"] or ()]
    assert sorted(ends) == sorted(starts) == sorted(link[0] for link in workflow["links"])


def ui_to_api(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """Class and inputs of the nodes that run."""
    check_links(workflow)
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] not in NOTES}
    links = {link[0]: link for link in workflow["links"]}

    def origin(number: int) -> list[Any] | None:
        _, source, output, _, _, kind = links[number]
        node = nodes[source]
        if node["mode"] == MUTED:
            return None
        if node["mode"] != BYPASSED:
            return [str(source), output]
        same = [i["link"] for i in node["inputs"] if i["type"] == kind and i["link"] is not None]
        return origin(same[0]) if same else None

    graph = {}
    for node in nodes.values():
        if node["mode"] in (MUTED, BYPASSED):
            continue
        inputs = widget_values(node, object_info[node["type"]])
        for slot in node["inputs"]:
            if slot["link"] is not None and (value := origin(slot["link"])) is not None:
                inputs[slot["name"]] = value
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def enable(workflow: dict[str, Any], *types: str) -> None:
    """Set these bypassed nodes to work, as Ctrl+B does."""
    for node in workflow["nodes"]:
        if node["type"] in types:
            node["mode"] = 0


def load_ui(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return workflow


def load_api(name: str) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    return graph


def shortened(graph: dict[str, Any]) -> dict[str, Any]:
    """The same graph over a second of speech that begins after the silence, in few steps. Changes it in place."""
    for node in graph.values():
        inputs = node["inputs"]
        if node["class_type"] == "LetsTalkEncodeAudio":
            inputs.update(start_seconds=START_SECONDS, length_seconds=FRAMES / FPS)
        if node["class_type"] == "TrimAudioDuration":
            inputs["start_index"] = CUT / FPS
        if "steps" in inputs:
            inputs["steps"] = STEPS
        for name in ("max_frames", "first_frame"):
            if inputs.get(name):
                inputs[name] = CUT
    return graph


def saved_video(server: ComfyServer, history: dict[str, Any], graph: dict[str, Any]) -> Video:
    """What the graph's Save Video node wrote."""
    (node,) = (key for key, node in graph.items() if node["class_type"] == "SaveVideo")
    (item,) = history["outputs"][node]["images"]
    return read_video(server.file(item))
