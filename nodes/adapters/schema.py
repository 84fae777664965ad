"""Node schemas that old and new ComfyUI cores both accept, and the socket types of this pack."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}
_ALIASES: dict[str, list[str]] = {}  # search words of each node

Memory = io.Custom("LETSTALK_MEMORY")  # a letstalk_core MemoryBank
MemorySettingsType = io.Custom("LETSTALK_MEMORY_SETTINGS")
Crop = io.Custom("LETSTALK_CROP")
Motion = io.Custom("LETSTALK_MOTION")  # letstalk_core MotionCurves
Curve = io.Custom("FLOAT")  # without a widget: a number, or a list with one a frame
BoundingBox = io.Custom("BBOX")  # as face and segment packs name it: x, y, width, height


def advanced(widget: Any) -> Any:
    """The same input, which a browser that knows advanced inputs shows on request only.

    0.3.64 has no keyword for it and hands on what stands in `extra_dict`, where its browser looks for it.
    """
    if hasattr(widget, "advanced"):
        widget.advanced = True
    else:
        widget.extra_dict = {**widget.extra_dict, "advanced": True}
    return widget


def make_schema(*, folded: frozenset[str] = frozenset(), **keywords: Any) -> io.Schema:
    """A schema without the keywords that this core does not know.

    One unknown keyword (0.3.64 has no `search_aliases`) would fail the import of the whole pack. The browser folds
    the inputs named in `folded` away until they are asked for.
    """
    for given in keywords.get("inputs", ()):
        if given.id in folded:
            advanced(given)
    _ALIASES[keywords["node_id"]] = keywords.get("search_aliases", [])
    return io.Schema(**{name: value for name, value in keywords.items() if name in _KNOWN})


def with_search_words(node: Any) -> Any:
    """A node class that tells the browser its search words also where the core's schema has no place for them."""
    if "search_aliases" in _KNOWN or "GET_NODE_INFO_V1" in vars(node):
        return node
    tell = node.GET_NODE_INFO_V1

    def info(cls: Any) -> dict[str, Any]:
        told = tell()
        return {**told, "search_aliases": _ALIASES[told["name"]]}

    node.GET_NODE_INFO_V1 = classmethod(info)
    return node
