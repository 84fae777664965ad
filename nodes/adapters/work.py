"""Work folders of Talking Video in ComfyUI's output folder, and what a run is recognised by after a restart."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import types
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...letstalk_core.errors import ConfigError, OutputError
from ...letstalk_core.generate.machine import machine
from ...letstalk_core.generate.work_folder import FRAMES_VERSION, WorkFolder
from ...letstalk_core.media.audio.track import AudioTrack
from ...letstalk_core.sampling.memory_bank import MemoryBank
from .clip_run import ClipRun
from .provenance import models_sha256

UNFINISHED = ("continue", "start anew")
KEPT = 4  # unnamed folders of unfinished videos
NAME = re.compile(r"\w[\w .-]{0,79}")
DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)
DEEPEST = 12


def work_root() -> Path:
    """Where work folders lie: it must outlive ComfyUI, which empties its temp folder."""
    return Path(folder_paths.get_output_directory()) / "letstalk_work"


def open_work(found: dict[str, Any], also: dict[str, Any], name: str, unfinished: str) -> WorkFolder:
    """The work folder of a run that is recognised by `found`, not locked yet.

    With a name the folder is kept when the video is done; without, it is named by the settings, and the oldest
    such folders go. Raises: ConfigError for a name that is no plain folder name.
    """
    name, restart = name.strip(), unfinished == UNFINISHED[1]
    if name:
        if not NAME.fullmatch(name) or name.startswith("auto-") or name.endswith((".", " ")) or DEVICE.match(name):
            raise ConfigError(
                f"work_folder: {name!r} is no plain name; use letters, digits, spaces, dots and dashes, not"
                " starting with auto-, and no name that Windows keeps for devices, such as con or com1"
            )
        return WorkFolder(work_root() / name, keep=True, also=also, restart=restart)
    key = hashlib.sha256(json.dumps([found, also], sort_keys=True).encode()).hexdigest()[:16]
    folder = work_root() / f"auto-{key}"
    _drop_oldest(folder)
    return WorkFolder(folder, also=also, restart=restart)


def _drop_oldest(mine: Path) -> None:
    others = [p for p in work_root().glob("auto-*") if p != mine and p.is_dir()]
    for folder in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT - 1 :]:
        work = WorkFolder(folder)
        try:
            work.lock()
            work.remove()
        except OutputError:  # another server works on it
            continue
        finally:
            work.release()
        shutil.rmtree(folder, ignore_errors=True)


def fingerprint(run: ClipRun, vae: Any, sound: tuple[Tensor, int] | None) -> dict[str, Any]:
    """Everything that the frames and the sound depend on, by names that tell a user what changed."""
    guider = run.guider
    patcher = guider.model_patcher
    dtypes = (patcher.model.get_dtype(), patcher.model.manual_cast_dtype, getattr(vae, "vae_dtype", None))
    numbers = {k: v for k, v in vars(guider).items() if isinstance(v, (int, float, str, tuple))}
    bank = run.bank
    memory = {} if bank.is_empty else bank.state_dict()
    return {
        "version": FRAMES_VERSION,
        "models": models_sha256(patcher.model, vae, run.track),
        "model_patches": _digest([patcher.patches, patcher.object_patches, patcher.model_options]),
        "precision": ", ".join(map(str, dtypes)),
        "device": str(patcher.load_device),
        **machine(patcher.load_device),
        "guider": _digest([type(guider).__qualname__, numbers]),
        "positive": _digest(guider.original_conds),
        "sampler": _digest(run.sampler),
        "sigmas": [float(sigma) for sigma in run.sigmas],
        "seed": run.seed,
        "noise": _digest(run.noise),
        "memory": _digest([memory, vars(bank.settings), bank.recent, bank.anchors]),
        "frames": [run.first_frame, run.frames],
        "fps": run.fps,
        "audio": _digest(sound),
    }


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest.update, value, 0)
    return digest.hexdigest()


def _feed(update: Any, value: Any, depth: int) -> None:
    """Values by their contents, objects by class and attributes; what no two processes share is left out."""
    kind = type(value)
    update(f"<{kind.__qualname__}>".encode())
    if depth > DEEPEST or isinstance(value, (uuid.UUID, ModelPatcher, torch.nn.Module)):
        return  # models are told apart by the hashes of their files
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype, torch.device)):
        update(repr(value).encode())
    elif isinstance(value, Tensor):
        flat = value.detach().to("cpu").contiguous().flatten()
        update(f"{value.dtype}{tuple(value.shape)}".encode())
        if flat.numel():
            update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, AudioTrack):
        for part in (value.states, value.waveform, value.fps, value.sample_rate, value.start_seconds):
            _feed(update, part, depth + 1)
    elif isinstance(value, MemoryBank):
        _feed(update, None if value.is_empty else value.state_dict(), depth + 1)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            update(repr(key).encode())
            _feed(update, value[key], depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(update, item, depth + 1)
    elif isinstance(value, (set, frozenset)):
        update("".join(sorted(_digest(item) for item in value)).encode())
    elif isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
        update(f"{value.__module__}.{value.__qualname__}".encode())
        for cell in getattr(value, "__closure__", None) or ():
            _feed(update, cell.cell_contents, depth + 1)
    elif isinstance(value, types.MethodType):
        _feed(update, value.__func__, depth + 1)
        _feed(update, value.__self__, depth + 1)
    elif hasattr(value, "__dict__"):
        _feed(update, vars(value), depth + 1)
