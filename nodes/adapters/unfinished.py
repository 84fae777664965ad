"""Which videos were begun and not finished, told to the browser with the graph that began them.

A file beside each work folder keeps that graph: what a run is recognised by holds the seed, and a new node changes
its seed after every run, so without it nobody knows which seed to set to continue.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from ...letstalk_core.errors import OutputError
from ...letstalk_core.files import atomic_path
from ...letstalk_core.generate.work_folder import WorkFolder
from .clip_run import ClipRun
from .progress import browser
from .work import work_root

ROUTE = "/letstalk/unfinished"
SUFFIX = ".graph.json"
MOST = 20  # told at once, the newest first
MOST_BYTES = 1 << 20  # of a graph, which the browser compares with its own
FINISHED = re.compile(r"(clip|bank)-(\d{6})\.safetensors")

log = logging.getLogger(__name__)


def note_origin(work: WorkFolder, run: ClipRun, node_id: str | None, prompt: Any) -> None:
    """Keep the graph (API format) of a run beside its work folder; forget those whose folders are gone.

    A folder that is there already keeps the graph that began it, unless it is started anew. Without a graph, as in
    scripts, nothing is kept. A disk that refuses the file stops no video.
    """
    folder = work.folder
    origin = folder.with_name(folder.name + SUFFIX)
    for path in folder.parent.glob(f"*{SUFFIX}"):
        if not _folder_of(path).is_dir():
            path.unlink(missing_ok=True)
    if origin.exists() and not work.restart:
        return
    graph = _upstream(prompt, str(node_id))
    lengths = {"frames": run.frames, "fps": run.fps, "clip_frames": run.config.clip_frames}
    text = json.dumps({"node": str(node_id), "graph": graph, "first_clip": run.plan[0].index, **lengths})
    if not graph or len(text) > MOST_BYTES:
        return
    try:
        with atomic_path(origin) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (OSError, OutputError) as error:
        log.warning("LetsTalk: an unfinished video will not be offered to be continued: %s", error)


def forget_origin(work: WorkFolder) -> None:
    """The video of a work folder is there."""
    folder = work.folder
    folder.with_name(folder.name + SUFFIX).unlink(missing_ok=True)


def _folder_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(SUFFIX))


def _upstream(prompt: Any, node_id: str) -> dict[str, Any]:
    """The node and all that it depends on, without titles. Empty if the graph does not hold them all."""
    graph: dict[str, Any] = {}
    wanted = [node_id]
    while wanted:
        name = wanted.pop()
        if name in graph:
            continue
        node = prompt.get(name) if isinstance(prompt, dict) else None
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            return {}
        graph[name] = {"class_type": node.get("class_type"), "inputs": node["inputs"]}
        wanted += [str(v[0]) for v in node["inputs"].values() if isinstance(v, list) and len(v) == 2]
    return graph


def unfinished_runs() -> list[dict[str, Any]]:
    """Runs that lack clips, the newest first: node, graph, and seconds of the video made and in all.

    A run that is at work is among them; who asks knows of it.
    """
    found = []
    for path in work_root().glob(f"*{SUFFIX}"):
        folder = _folder_of(path)
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            made = min(_clips(folder, about["first_clip"]) * about["clip_frames"], about["frames"])
            if 0 < made < about["frames"] and (folder / "run.json").is_file():
                seconds = {"made": made / about["fps"], "seconds": about["frames"] / about["fps"]}
                told = {"node": about["node"], "graph": about["graph"], **seconds}
                found.append((folder.stat().st_mtime, told))
        except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError):
            continue  # half written, or not ours
    return [told for _, told in sorted(found, key=lambda pair: pair[0], reverse=True)[:MOST]]


def _clips(folder: Path, first: int) -> int:
    """How many clips are finished; of those that the video holds only the memory after them may be left."""
    done = 0
    for path in folder.iterdir():
        if match := FINISHED.fullmatch(path.name):
            done = max(done, int(match[2]) + 1 - first if match[1] == "clip" else int(match[2]))
    return done


def add_route() -> None:
    """Let the running server answer the browser's question under `ROUTE`; once, before it listens."""
    server = browser()
    if server is None:
        return
    from aiohttp import web  # ComfyUI brings it

    async def answer(_: Any) -> Any:
        return web.json_response(unfinished_runs())

    server.routes.get(ROUTE)(answer)
