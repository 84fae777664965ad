"""Where ComfyUI keeps LetsTalk's model files.

`models/letstalk` holds model folders as `letstalk --model` takes them, and whatever has no folder of its own in
ComfyUI. Single networks may also lie in ComfyUI's own `diffusion_models`, `vae` and `audio_encoders`.
"""

from __future__ import annotations

from pathlib import Path

import folder_paths

__all__ = ["EXTENSIONS", "FOLDER", "register_folders"]

FOLDER = "letstalk"
EXTENSIONS = (".safetensors", ".sft")


def register_folders() -> None:
    """Make `models/letstalk` known to ComfyUI. May run twice; folders that the user added stay.

    A key that ComfyUI does not know yet starts without extensions, which would list every file.
    """
    default = Path(folder_paths.models_dir) / FOLDER
    folder_paths.add_model_folder_path(FOLDER, str(default), is_default=True)
    paths, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {*extensions, *EXTENSIONS})
