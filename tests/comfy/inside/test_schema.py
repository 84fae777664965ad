"""What the browser is told of the nodes beyond their sockets: what it folds away, and what its search finds."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_search_words_of_the_short_node_are_told_and_its_own(comfy_nodes: dict[str, Any]) -> None:
    """Also by 0.3.64, whose schema does not know them."""
    told = {
        name: set(node.GET_NODE_INFO_V1()["search_aliases"])
        for name, node in comfy_nodes.items()
        if name.startswith("LetsTalk")
    }
    assert told.pop(SHORT_NODE) >= ITS_WORDS
    assert not any(ITS_WORDS & words for words in told.values())
