"""The example workflows as files: up to date, complete, tidy, and the same in both formats."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.comfy.server import ComfyServer
from tests.end_to_end.graphs import load_api, load_ui, ui_to_api

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
TITLE = 30  # pixels above a node's position


def box(node: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a node with its title."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def test_the_workflows_are_there_in_order() -> None:
    assert sorted(int(name.partition("_")[0]) for name in NAMES) == [*range(1, len(NAMES) + 1)]
    assert sorted(path.stem for path in (FOLDER / "api").glob("*.json")) == NAMES


def test_files_are_what_the_script_makes(server: ComfyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import make_workflows

    made = make_workflows.make(server.object_info())
    stale = [name for name, graph in made.items() if json.loads((ROOT / name).read_text("utf-8")) != graph]
    assert not stale, "run scripts/make_workflows.py"


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_hold_the_same_graph(name: str, server: ComfyServer) -> None:
    bare = {key: {k: v for k, v in node.items() if k != "_meta"} for key, node in load_api(name).items()}
    assert ui_to_api(load_ui(name), server.object_info()) == bare


@pytest.mark.parametrize("name", NAMES)
def test_no_node_covers_another_and_each_lies_in_a_titled_group(name: str) -> None:
    workflow = load_ui(name)
    for one, other in combinations(workflow["nodes"], 2):
        a, b = box(one), box(other)
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one['type']} and {other['type']} overlap"
    for node in workflow["nodes"]:
        left, top, right, bottom = box(node)
        around = []
        for group in workflow["groups"]:
            x, y, width, height = group["bounding"]
            if x <= left and y <= top and x + width >= right and y + height >= bottom:
                around.append(group)
        assert len(around) == 1 and around[0]["title"], node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_note_and_a_picture(name: str) -> None:
    notes = [node["widgets_values"][0] for node in load_ui(name)["nodes"] if node["type"] == "MarkdownNote"]
    assert notes and "photographs and drawn faces" in notes[0]
    picture = FOLDER / f"{name}.jpg"
    assert picture.stat().st_size < 60_000
    with Image.open(picture) as image:
        assert image.format == "JPEG" and 300 <= image.width <= 500


@pytest.mark.parametrize("name", NAMES)
def test_the_template_browser_gets_them(name: str, server: ComfyServer) -> None:
    assert name in server.get_json("/workflow_templates")["LetsTalk"]
    assert json.loads(server.get(f"/api/workflow_templates/LetsTalk/{name}.json")) == load_ui(name)
    assert server.get(f"/api/workflow_templates/LetsTalk/{name}.jpg")[:2] == b"\xff\xd8"


def test_the_blueprint_is_a_whole_graph_with_one_way_in_and_out() -> None:
    """As the browser checks a published subgraph: every link is known at both its ends."""
    (path,) = (ROOT / "subgraphs").glob("*.json")
    workflow = json.loads(path.read_text(encoding="utf-8"))
    (definition,) = workflow["definitions"]["subgraphs"]
    (instance,) = workflow["nodes"]
    assert instance["type"] == definition["id"] and definition["name"] == path.stem
    nodes = {node["id"]: node for node in definition["nodes"]}
    assert not {"LetsTalkLoadPortrait", "LetsTalkLoadSpeech", "SaveVideo"} & {n["type"] for n in nodes.values()}
    for link in definition["links"]:
        if link["origin_id"] == -10:
            pin = definition["inputs"][link["origin_slot"]]
            assert link["id"] in pin["linkIds"] and pin["type"] == link["type"]
        else:
            output = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in output["links"] and output["type"] == link["type"]
        if link["target_id"] == -20:
            assert link["id"] in definition["outputs"][link["target_slot"]]["linkIds"]
        else:
            assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
    ids = [link["id"] for link in definition["links"]]
    ends = [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot["link"] is not None]
    leaving = [number for pin in definition["outputs"] for number in pin["linkIds"]]
    assert sorted(ends + leaving) == sorted(ids) and len(set(ids)) == len(ids)
    assert [pin["name"] for pin in definition["inputs"]] == ["image", "audio"]
