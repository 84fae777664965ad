"""A person's own model, trained by `letstalk personalize` in a process of its own.

Training is no part of what runs inside ComfyUI: the research package is looked for beside this pack (a clone of
the repository) or among what pip installed; its command is started with ComfyUI's Python. Progress comes in JSON
lines; a cancelled run is ended gently and goes on when the node runs again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import InputImpl, Types

from ...letstalk_core.errors import ConfigError, DependencyError, LetsTalkError
from .folders import FOLDER
from .pictures import rgb_image
from .progress import check_interrupt

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
EXISTING = ["use it", "train anew"]
NAME = re.compile(r"[^\W_][\w -]{0,59}")
PARTS = {"preparing": (0.0, 0.1), "training autoencoder": (0.1, 0.3), "encoding": (0.3, 0.35)}
PARTS |= {"training lips": (0.35, 0.37), "training dit": (0.37, 0.85), "training carry": (0.85, 0.9)}
PARTS |= {"measuring": (0.9, 1.0)}
GENTLE_S = 60.0  # that a training gets to write its state


def model_folder(name: str) -> Path:
    """`models/letstalk/NAME`. Raises: ConfigError for a name that is more than a name."""
    if not NAME.fullmatch(name) or name != name.strip():
        raise ConfigError(f"name: {name[:80]!r} must be letters, digits, spaces, '-' and '_', at most 60")
    return Path(folder_paths.get_folder_paths(FOLDER)[0]) / name


def command() -> tuple[list[str], dict[str, str]]:
    """How `letstalk` is started, and its environment. Raises: DependencyError where there is no training."""
    beside = (ROOT / "letstalk_research").is_dir()
    if not beside and importlib.util.find_spec("letstalk_research") is None:
        raise DependencyError(
            "training is not part of what ComfyUI's registry installs; pip install 'letstalk-portrait[train]' with"
            " ComfyUI's Python, or use a clone of the repository in custom_nodes, and restart ComfyUI"
        )
    path = [str(ROOT)] if beside else []
    path += [p for p in [os.environ.get("PYTHONPATH")] if p]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
    return [sys.executable, "-m", "letstalk_core.cli"], environment


@contextlib.contextmanager
def source_video(folder: Path, video: Any, images: Any, audio: Any, fps: float) -> Iterator[Path]:
    """The file to train on: that of a VIDEO, or one made of IMAGE and AUDIO, which is deleted after success.

    Its name follows from its content, so that a run which was stopped goes on. Raises: ConfigError.
    """
    if (video is None) == (images is None):
        raise ConfigError("video: wire either video, or images and audio")
    if video is not None and not hasattr(video, "get_components"):
        raise ConfigError(f"video: is a {type(video).__name__}; wire a VIDEO")
    if video is not None and not isinstance(video, InputImpl.VideoFromComponents):
        source = video.get_stream_source()
        if isinstance(source, str) and Path(source).is_file():
            yield Path(source)
            return
    if video is None:
        if audio is None:
            raise ConfigError("audio: is missing; images need the sound that was recorded with them")
        parts = Types.VideoComponents(images=rgb_image(images, "images"), audio=audio, frame_rate=Fraction(fps))
        video = InputImpl.VideoFromComponents(parts)
    parts = video.get_components()
    digest = hashlib.sha256(repr((parts.images.shape, parts.frame_rate)).encode())
    digest.update(parts.images[:: max(1, len(parts.images) // 16)].contiguous().numpy().tobytes())
    if parts.audio is not None:
        digest.update(parts.audio["waveform"].contiguous().numpy().tobytes())
    path = folder / f"source-{digest.hexdigest()[:16]}.mp4"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        partial = path.with_name(f"{path.stem}-part.mp4")
        video.save_to(str(partial))
        partial.replace(path)
    yield path
    path.unlink(missing_ok=True)


def personalize(video: Path, folder: Path, minutes: float, lora: bool, tell: Callable[[str], None]) -> str:
    """Train in `folder`; the report as Markdown. `tell` gets a line about where it stands.

    Raises: ComfyUI's interruption when the user cancels, DependencyError, ConfigError with the program's words.
    """
    start, environment = command()
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    arguments = ["personalize", str(video), "-o", str(folder), "--minutes", str(minutes), "--json", "--overwrite"]
    arguments += ["--lora"] if lora else []
    bar = comfy.utils.ProgressBar(1000)
    folder.parent.mkdir(parents=True, exist_ok=True)  # of a ComfyUI that has no model of ours yet
    process = subprocess.Popen(
        [*start, *arguments], env=environment, cwd=folder.parent, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    threads = [
        threading.Thread(target=_read, args=(process.stdout, lines.put), daemon=True),
        threading.Thread(target=_read, args=(process.stderr, errors.append), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        while process.poll() is None or not lines.empty():
            check_interrupt()
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=0.2)
                if line is not None:
                    _show(line, bar, tell)
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        threads[1].join(5)
        log.error("letstalk personalize:\n%s", "".join(errors[-100:]))
        said = [e.strip() for e in errors if e and e.strip()]
        words = next((e.removeprefix("error: ") for e in reversed(said) if e.startswith("error: ")), None)
        raise LetsTalkError(words or f"training ended with code {process.returncode}: {' '.join(said[-3:])[:400]}")
    report = folder / "report" / "report.md"
    return report.read_text(encoding="utf-8") if report.is_file() else ""


def _read(stream: Any, put: Callable[[str], None]) -> None:
    for line in stream:
        put(line)


def _show(line: str, bar: Any, tell: Callable[[str], None]) -> None:
    try:
        said = json.loads(line)
    except ValueError:
        return
    if isinstance(said, dict) and said.get("stage") in PARTS:
        first, last = PARTS[said["stage"]]
        bar.update_absolute(round(1000 * (first + (last - first) * float(said["share"]))))
        tell(f"{said['stage']}: {said['text']}")


def _end(process: subprocess.Popen[str]) -> None:
    """Let a training write its state, and take the process away if it does not."""
    process.terminate()
    try:
        process.wait(GENTLE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
