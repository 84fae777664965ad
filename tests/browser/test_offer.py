"""An unfinished run is offered to the node that would continue it, with its seed, in one click."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Frontend

ROOT = Path(__file__).resolve().parents[2]
SEED = 4711


def begin(base: Path) -> None:
    """Leave what a run of the graph of separate nodes leaves when it is killed after 5 of 16 clips."""
    graph = json.loads((ROOT / "workflows" / "api" / "2_step_by_step.json").read_text(encoding="utf-8"))
    (node,) = [name for name, entry in graph.items() if entry["class_type"] == "LetsTalkTalkingVideo"]
    graph[node]["inputs"]["seed"] = SEED
    folder = base / "output" / "letstalk_work" / "auto-0123456789abcdef"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text("{}")
    (folder / "clip-000004.safetensors").touch()
    about = {"frames": 250, "fps": 25.0, "clip_frames": 16, "first_clip": 0}
    folder.with_name(f"{folder.name}.graph.json").write_text(json.dumps({"node": node, "graph": graph, **about}))


@pytest.fixture(scope="module")
def seen(frontend: Frontend) -> dict[str, Any]:
    """What offer.mjs saw."""
    begin(frontend.server.base)
    return frontend.visit("offer.mjs", frontend.name)


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_one_click_continues_an_unfinished_run(renderer: str, frontend: Frontend, seen: dict[str, Any]) -> None:
    there = seen[renderer]
    assert there["other"] is None, "with another setting it would be another run"
    frontend.skip_old_vue(renderer)
    assert there["same"] == f"Continue (3.2 s of 10.0 s, seed {SEED})"
    (graph,) = there["queued"]
    (node,) = [entry for entry in graph.values() if entry["class_type"] == "LetsTalkTalkingVideo"]
    assert node["inputs"]["seed"] == SEED
    assert there["control"] == "randomize", "what happens after a run stays as the user set it"
