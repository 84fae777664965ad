"""Two servers of one machine that share their models."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from letstalk_core.networks.load import DEMO_FOLDER
from tests.comfy.server import ComfyServer
from tests.end_to_end.graphs import FRAMES, load_api, saved_video, shortened

LOADERS = {
    "LetsTalkLoadDiT": ("model", "dit"),
    "LetsTalkLoadAutoencoder": ("autoencoder", "autoencoder"),
    "LetsTalkLoadAudioEncoder": ("audio_encoder", "audio_encoder"),
}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything in a folder."""
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def quickstart() -> dict[str, Any]:
    """The shortened quickstart on the model in the shared folder."""
    graph = shortened(load_api("2_step_by_step"))
    for node in graph.values():
        if node["class_type"] in LOADERS:
            name, kind = LOADERS[node["class_type"]]
            node["inputs"][name] = f"shared/{kind}.safetensors"
    return graph


def offered(server: ComfyServer) -> dict[str, list[str]]:
    """What each loader lists."""
    info = server.object_info()
    specs = {node: info[node]["input"]["required"][name] for node, (name, _) in LOADERS.items()}
    return {node: spec[0] if isinstance(spec[0], list) else spec[1]["options"] for node, spec in specs.items()}


def span(history: dict[str, Any]) -> tuple[int, int]:
    """When a prompt began and ended, in ms."""
    times = {kind: data["timestamp"] for kind, data in history["status"]["messages"]}
    return times["execution_start"], times["execution_success"]


def test_two_servers_use_one_models_folder_at_the_same_time(comfyui: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(DEMO_FOLDER, models / "letstalk" / "shared")
    bases = [tmp_path / "one", tmp_path / "two"]
    for base in bases:
        base.mkdir()
        (base / "models").symlink_to(models, target_is_directory=True)
    before, graph = listing(models), quickstart()
    with ExitStack() as running, ThreadPoolExecutor(2) as pool:
        servers = list(pool.map(lambda base: running.enter_context(ComfyServer(comfyui, base)), bases))
        lists = [offered(server) for server in servers]
        assert lists[0] == lists[1]
        for node, (_, kind) in LOADERS.items():
            assert f"shared/{kind}.safetensors" in lists[0][node]
        prompts = [server.queue(graph) for server in servers]
        histories = [server.wait(prompt) for server, prompt in zip(servers, prompts, strict=True)]
        begun, ended = zip(*map(span, histories), strict=True)
        assert max(begun) < min(ended), "they did not run at the same time"
        pairs = zip(servers, histories, strict=True)
        videos = [saved_video(server, history, graph).frames for server, history in pairs]
    assert len(videos[0]) == FRAMES and np.array_equal(videos[0], videos[1])
    assert listing(models) == before
