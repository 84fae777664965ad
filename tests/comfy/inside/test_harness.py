"""The harness itself: a native graph runs, a second run is cached, a bad one is reported."""

from __future__ import annotations

from typing import Any

import pytest


def graph(width: int) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 16, "batch_size": 1, "color": 255}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_a_native_graph_runs_and_its_second_run_is_cached(run_graph: Any) -> None:
    outputs = run_graph(graph(32))
    assert tuple(outputs["1"][0][0].shape) == (1, 16, 32, 3)
    assert run_graph.ui["2"]["images"][0]["type"] == "temp"
    run_graph(graph(32))
    assert set(run_graph.cached) == {"1", "2"}


def test_a_refused_graph_is_an_error(run_graph: Any) -> None:
    with pytest.raises(AssertionError, match="width"):
        run_graph(graph(-5))


def test_the_pack_lists_its_nodes(pack: Any, comfy_nodes: dict[str, Any]) -> None:
    assert pack.WEB_DIRECTORY == "./js"
    assert [name for name in comfy_nodes if name.startswith("LetsTalk")]
