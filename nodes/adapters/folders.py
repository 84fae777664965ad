"""Where ComfyUI keeps LetsTalk's files: models, pictures, recordings. Names come from a browser: never trusted.

`models/letstalk` holds model folders as `letstalk --model` takes them, and whatever has no folder of its own in
ComfyUI. Single networks may also lie in ComfyUI's own `diffusion_models`, `vae` and `audio_encoders`. A name is
what a list gave out, and nothing else: it is looked up, never joined to a path. Only files of the input folder,
which are uploaded after the list was made, are found by their name, and only inside that folder.
"""

from __future__ import annotations

import logging
import mimetypes
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import folder_paths

from ...letstalk_core.errors import CheckpointError, MediaError
from ...letstalk_core.files import while_unchanged
from ...letstalk_core.networks.checkpoint import read_header
from ...letstalk_core.networks.load import DEMO_FOLDER

FOLDER = "letstalk"
EXTENSIONS = (".safetensors", ".sft")
DEMO_NAME = "demo (bundled)"
OLD_DEMO_NAME = "demo (bundled, drawn faces)"  # in workflows of 0.1
COMFYUI_FOLDERS = {"dit": "diffusion_models", "autoencoder": "vae", "audio_encoder": "audio_encoders"}
FOREIGN = {  # a tensor that tells a public file without a LetsTalk header from the other models in its folder
    "autoencoder": re.compile(r"encoder\.(down_blocks|stages)\.\d+\.(\d+|op_list)\."),
    "audio_encoder": re.compile(r"feature_extractor\.conv_layers\.0\.conv\.weight$"),
}
TRACES = (  # in the bytes of a header: without any of them it is another model's, and not worth parsing
    b'"letstalk.version"',
    b"encoder.down_blocks.",
    b"encoder.stages.",
    b"feature_extractor.conv_layers.0.conv.weight",
)
MAX_HEADER_BYTES = 16 * 2**20  # a wav2vec2 of 48 layers has 0.1 MB
FACE_DETECTOR = re.compile(r"yunet.*\.(pth|safetensors)$", re.IGNORECASE)
SCENE = ("scenes", "bundled demo scene")  # a larger picture with a person in it, to crop from
INPUTS = {  # kind: folder of bundled files, what they are called, file name extensions
    "portrait": (
        "portraits",
        "bundled demo portrait",
        ".png .jpg .jpeg .webp .bmp .gif .tif .tiff .avif .jp2 .tga .ppm",
    ),
    "speech": (
        "speech",
        "bundled demo speech",
        ".wav .mp3 .flac .ogg .opus .m4a .aac .wma .aiff .aif .mp4 .mov .mkv .webm .avi",
    ),
}

NATIVE = {"portrait": {"image"}, "speech": {"audio", "video"}}  # what ComfyUI's own loaders list
PLACES: dict[str, Callable[[], str]] = {  # as names of files may end in ComfyUI
    " [input]": folder_paths.get_input_directory,
    " [output]": folder_paths.get_output_directory,
    " [temp]": folder_paths.get_temp_directory,
}

log = logging.getLogger(__name__)


def register_folders() -> None:
    """Make `models/letstalk` known to ComfyUI. May run twice; folders that the user added stay.

    A key that ComfyUI does not know yet starts without extensions, which would list every file.
    """
    default = Path(folder_paths.models_dir) / FOLDER
    folder_paths.add_model_folder_path(FOLDER, str(default), is_default=True)
    paths, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {*extensions, *EXTENSIONS})


def list_models(kind: str) -> list[str]:
    """Names to choose from: "dit", "autoencoder", "audio_encoder" or "face_detector". The bundled one is first."""
    return list(_models(kind))


def resolve_model(kind: str, name: str) -> Path:
    """The file of a name that `list_models` gave out. Raises: CheckpointError."""
    models = _models(kind)
    name = DEMO_NAME if name == OLD_DEMO_NAME else name
    if name not in models:
        raise CheckpointError(
            f"{kind}: no file {name!r} of this kind; put it into models/{FOLDER}"
            f"{' or models/' + COMFYUI_FOLDERS[kind] if kind in COMFYUI_FOLDERS else ''}, press R, and choose"
            f" one of {list(models) or 'those listed then'}"
        )
    return models[name]


def list_bundles() -> list[str]:
    """Names of model folders: a DiT, its autoencoder and its audio encoder. The bundled one is first."""
    return list(_bundles())


def resolve_bundle(name: str) -> Path:
    """The folder of a name that `list_bundles` gave out. Raises: CheckpointError."""
    found = _bundles()
    name = DEMO_NAME if name == OLD_DEMO_NAME else name
    if name not in found:
        raise CheckpointError(
            f"model: no model folder {name!r}; put dit, autoencoder and audio_encoder.safetensors into a folder in"
            f" models/{FOLDER}, press R, and choose one of {list(found)}"
        )
    return found[name]


def _bundles() -> dict[str, Path]:
    bundles = {DEMO_NAME: DEMO_FOLDER}
    for name in folder_paths.get_filename_list(FOLDER):
        path = folder_paths.get_full_path(FOLDER, name)
        if path is not None and Path(name).name == "dit.safetensors" and Path(name).parent.name:
            folder = Path(path).parent
            if all((folder / f"{kind}.safetensors").is_file() for kind in COMFYUI_FOLDERS):
                bundles.setdefault(Path(name).parent.as_posix(), folder)
    return bundles


def _models(kind: str) -> dict[str, Path]:
    if kind == "face_detector":
        return _face_detectors()
    models = {DEMO_NAME: DEMO_FOLDER / f"{kind}.safetensors"}
    for folder in (FOLDER, COMFYUI_FOLDERS[kind]):
        level = logging.WARNING if folder == FOLDER else logging.DEBUG  # others' files are not ours to complain of
        for name in folder_paths.get_filename_list(folder):
            path = folder_paths.get_full_path(folder, name)
            if path is not None and name.endswith(EXTENSIONS) and kind in _kinds_of(Path(path), level):
                models[f"{name} [{folder}]" if name in models else name] = Path(path)
    return models


def _face_detectors() -> dict[str, Path]:
    """ComfyUI's own list leaves out .pth files here, which is how these weights are published."""
    found: dict[str, Path] = {}
    for folder in map(Path, folder_paths.get_folder_paths(FOLDER)):
        for path in sorted(folder.rglob("*")):
            if FACE_DETECTOR.search(path.name) and path.is_file():
                found.setdefault(str(path.relative_to(folder)), path)
    return found


def _kinds_of(path: Path, level: int) -> frozenset[str]:
    """What a file can be loaded as; an unreadable one is logged at `level`."""
    try:
        return _kinds(path, level)
    except OSError:  # it has just gone
        return frozenset()


@while_unchanged(4096)
def _kinds(path: Path, level: int) -> frozenset[str]:
    try:
        if not _may_be_ours(path):
            return frozenset()
        header = read_header(path)
    except CheckpointError as error:
        log.log(level, "LetsTalk does not list a model: %s", error)
        return frozenset()
    if header.parts:
        return frozenset(config.kind for config in header.parts.values())
    return frozenset(kind for kind, key in FOREIGN.items() if any(map(key.search, header.shapes)))


def _may_be_ours(path: Path) -> bool:
    """Whether the header is worth parsing: it has a trace of ours, or is damaged, which `read_header` explains."""
    try:
        with path.open("rb") as file:
            (length,), size = struct.unpack("<Q", file.read(8)), path.stat().st_size
            if MAX_HEADER_BYTES < length <= size - 8:
                return False
            header = file.read(length) if length <= size - 8 else b""
    except (OSError, struct.error):
        return True
    return not header.startswith(b"{") or any(trace in header for trace in TRACES)


def list_inputs(kind: str) -> list[str]:
    """Names of bundled and uploaded files to choose from: "portrait" or "speech". Bundled ones are first."""
    suffixes = INPUTS[kind][2].split()
    folder = Path(folder_paths.get_input_directory())
    inside = folder.resolve()
    names = [p.name for p in _files(folder) if p.resolve().is_relative_to(inside)] if folder.is_dir() else []
    return [
        *_bundled(kind),
        *(n for n in names if _content(n) in NATIVE[kind] or Path(n).suffix.lower() in suffixes),
    ]


def _content(name: str) -> str:
    """ "image", "audio", "video" and the like, by the end of a name, as ComfyUI's own lists tell."""
    return (mimetypes.guess_type(name, strict=False)[0] or "").partition("/")[0]


def resolve_input(kind: str, name: str) -> Path:
    """A bundled file, or one inside ComfyUI's input folder, subfolders too; `name [output]` and `name [temp]` are
    files of those folders. Raises: MediaError.
    """
    bundled = _bundled(kind)
    if name in bundled:
        return bundled[name]
    place = next((place for place in PLACES if name.endswith(place)), " [input]")
    folder = Path(PLACES[place]()).resolve()
    try:
        path = (folder / name.removesuffix(place)).resolve()
        found = path.is_relative_to(folder) and path.is_file()
    except (OSError, ValueError):  # names with null characters, names that are too long
        found = False
    if not found:
        raise MediaError(
            f"{kind}: no file {name!r} in ComfyUI's {place.strip(' []')} folder; upload it, or choose another"
        )
    return path


def _bundled(kind: str) -> dict[str, Path]:
    """What comes along, by name: photographs (.jpg) before drawings (.png), people before scenes."""
    places = [INPUTS[kind][:2]] + ([SCENE] if kind == "portrait" else [])
    return {
        f"{path.stem} ({label})": path
        for folder, label in places
        for path in sorted(_files(DEMO_FOLDER / folder), key=lambda path: path.suffix != ".jpg")
    }


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file())


def fingerprint(path: Path, beside: str = "") -> str:
    """Changes when the file does, or the one of the name `beside` in its folder; without reading them."""
    status = path.stat()
    found = f"{path}:{status.st_mtime_ns}:{status.st_size}"
    neighbour = path.with_name(beside) if beside else None
    if neighbour is None or not neighbour.is_file():
        return found
    return f"{found};{fingerprint(neighbour)}"


def temp_folder() -> Path:
    """ComfyUI's temporary folder, which it empties when it starts and stops."""
    return Path(folder_paths.get_temp_directory())
