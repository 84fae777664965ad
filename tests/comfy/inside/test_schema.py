"""What the browser is told of the nodes beyond their sockets: what it folds away, and what its search finds."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SHORT_NODE = "LetsTalkPortraitVideo"
ITS_WORDS = {"talking", "talking head", "lip sync", "audio to video", "portrait", "avatar"}


@pytest.mark.parametrize("name", ["LetsTalkTalkingVideo", "LetsTalkLongVideoSampler"])
def test_a_sampler_shows_at_most_seven_widgets_at_first(name: str, comfy_nodes: dict[str, Any]) -> None:
    inputs = comfy_nodes[name].GET_NODE_INFO_V1()["input"]
    specs = {**inputs["required"], **inputs["optional"]}
    widgets = {key: options for key, (kind, options) in specs.items() if kind in WIDGETS}
    shown = [key for key, options in widgets.items() if not options.get("advanced")]
    control = any(options.get("control_after_generate") for options in widgets.values())
    assert "seed" in shown and len(shown) + control <= 7
    assert {"schedule"} <= widgets.keys() - set(shown), "what is folded away is still there"


def test_search_words_of_the_short_node_are_its_own() -> None:
    """Cores before `search_aliases` do not tell them, so the sources are read."""
    for path in (ROOT / "nodes").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            keywords = {word.arg: word.value for word in call.keywords}
            if "search_aliases" in keywords and ast.literal_eval(keywords["node_id"]) != SHORT_NODE:
                assert not ITS_WORDS & set(ast.literal_eval(keywords["search_aliases"])), path.name
