"""The pack as a client of a real ComfyUI sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.comfy.server import ComfyServer


def ours(server: ComfyServer) -> dict[str, Any]:
    return {name: info for name, info in server.object_info().items() if name.startswith("LetsTalk")}


def inputs_of(info: dict[str, Any]) -> dict[str, Any]:
    """Every input of a node: name -> its type and options."""
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def test_the_pack_loads_on_a_real_server(server: ComfyServer) -> None:
    assert "IMPORT FAILED" not in server.log, server.log


def test_every_node_says_what_it_is_and_what_each_input_does(server: ComfyServer) -> None:
    nodes = ours(server)
    assert nodes
    for name, info in nodes.items():
        assert info["category"].partition("/")[0] == "LetsTalk", name
        assert info["display_name"] and info["description"], name
        for key, spec in inputs_of(info).items():
            options = spec[1] if len(spec) > 1 else {}
            assert len(options.get("tooltip", "")) > 10, f"{name}.{key} has no tooltip"
