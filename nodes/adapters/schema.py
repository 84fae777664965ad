"""Node schemas that old and new ComfyUI cores both accept, and the socket types of this pack."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

__all__ = ["BoundingBox", "Crop", "Memory", "MemorySettingsType", "make_schema"]

_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}

Memory = io.Custom("LETSTALK_MEMORY")  # a letstalk_core MemoryBank
MemorySettingsType = io.Custom("LETSTALK_MEMORY_SETTINGS")
Crop = io.Custom("LETSTALK_CROP")
BoundingBox = io.Custom("BBOX")  # as face and segment packs name it: x, y, width, height


def make_schema(**keywords: Any) -> io.Schema:
    """A schema without the keywords that this core does not know.

    One unknown keyword (0.3.64 has no `search_aliases`) would fail the import of the whole pack.
    """
    return io.Schema(**{name: value for name, value in keywords.items() if name in _KNOWN})
