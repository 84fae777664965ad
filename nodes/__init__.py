"""The LetsTalk nodes, as ComfyUI asks for them. Needs ComfyUI, so `letstalk_core` never imports it."""

from __future__ import annotations

import importlib
import importlib.util

from comfy_api.latest import ComfyExtension, io

from .adapters.folders import register_folders

__all__ = ["LetsTalkExtension", "comfy_entrypoint"]

MODULES = ("loaders", "conditioning", "guidance", "sampling", "memory", "portrait", "doctor")


class LetsTalkExtension(ComfyExtension):
    """The list of nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        present = [name for name in MODULES if importlib.util.find_spec(f".{name}", __package__)]
        return [node for name in present for node in importlib.import_module(f".{name}", __package__).NODES]


async def comfy_entrypoint() -> LetsTalkExtension:
    """Called by ComfyUI once, after it imported the pack; node schemas list model files, so folders come first."""
    register_folders()
    return LetsTalkExtension()
