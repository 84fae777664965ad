"""The LetsTalk nodes, as ComfyUI asks for them. Needs ComfyUI, so `letstalk_core` never imports it."""

from __future__ import annotations

import importlib

from comfy_api.latest import ComfyExtension, io

from .adapters.folders import register_folders
from .adapters.host_errors import with_host_errors
from .adapters.inputs import with_checked_inputs
from .adapters.schema import with_search_words

MODULES = (
    *("portrait_video", "dub", "loaders", "conditioning", "motion", "guidance", "sampling", "memory", "portrait"),
    *("detail", "personalize", "doctor"),
)


class LetsTalkExtension(ComfyExtension):
    """The list of nodes of the pack: every node class of `MODULES`, in their order."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = [importlib.import_module(f".{name}", __package__) for name in MODULES]
        found = [thing for module in modules for thing in vars(module).values()]
        nodes = [thing for thing in found if isinstance(thing, type) and issubclass(thing, io.ComfyNode)]
        return [with_search_words(with_host_errors(with_checked_inputs(node))) for node in nodes]


async def comfy_entrypoint() -> LetsTalkExtension:
    """Called by ComfyUI once, after it imported the pack; node schemas list model files, so folders come first."""
    register_folders()
    from .adapters.unfinished import add_route

    add_route()
    return LetsTalkExtension()
