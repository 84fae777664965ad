"""ComfyUI custom-node pack. `letstalk_core` is the library; `nodes` adapts it to ComfyUI."""

import sys

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY"]

if __package__ and "folder_paths" in sys.modules:  # not for pytest, which imports this file without ComfyUI
    from .nodes import comfy_entrypoint

    __all__ += ["comfy_entrypoint"]
