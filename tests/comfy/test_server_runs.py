"""How runs behave on a real ComfyUI: caching, cancelling, events, previews, other ways to start it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from letstalk_core.networks.load import DEMO_FOLDER
from tests.comfy.server import ComfyServer, Failed
from tests.end_to_end.graphs import FRAMES, STEPS, load_api, saved_video, shortened

if TYPE_CHECKING:
    from tests.conftest import StartServer

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm"}


def quickstart(**changes: Any) -> dict[str, Any]:
    """The shortened quickstart; `changes` are inputs of its Talking Video."""
    graph = shortened(load_api("2_step_by_step"))
    graph[talking(graph)]["inputs"].update(changes)
    return graph


def talking(graph: dict[str, Any]) -> str:
    return next(key for key, node in graph.items() if node["class_type"] == "LetsTalkTalkingVideo")


def test_the_browser_hears_of_every_clip_and_can_play_it(server: ComfyServer) -> None:
    graph = quickstart(seed=13)
    before = sum(kind == "binary" for kind, _ in server.client.messages)
    prompt_id = server.queue(graph)
    server.wait(prompt_id)
    events = [event for event in server.events(prompt_id, "letstalk.clip")]
    assert [event["clip"] for event in events] == [-1, 0, 1]
    assert {event["node"] for event in events} == {talking(graph)}
    assert events[-1]["frames_done"] == events[-1]["frames"] == FRAMES
    media = [event["media"] for event in events if event["media"]]
    assert media and all(server.view(item)[4:8] == b"ftyp" for item in media)
    progress = [event for event in server.events(prompt_id, "progress") if event["node"] == talking(graph)]
    assert [event["max"] for event in progress][-1] == progress[-1]["value"] == 2 * STEPS
    assert sum(kind == "binary" for kind, _ in server.client.messages) > before  # latent previews


def test_cancel_stops_within_a_step_and_leaves_nothing_behind(server: ComfyServer) -> None:
    graph = quickstart(seed=15)
    for node in graph.values():
        if node["class_type"] == "LetsTalkEncodeAudio":
            node["inputs"]["length_seconds"] = 8.0
    videos = set(files(server))
    prompt_id = server.queue(graph)
    server.wait_for(
        prompt_id, "progress", lambda event: event["node"] == talking(graph) and event["value"] > STEPS
    )
    server.interrupt()
    steps = len(server.events(prompt_id, "progress"))
    with pytest.raises(Failed) as failed:
        server.wait(prompt_id)
    assert "execution_interrupted" in failed.value
    assert len(server.events(prompt_id, "progress")) <= steps + 1
    assert set(files(server)) <= videos
    again = server.run(quickstart(seed=16))
    assert saved_video(server, again, graph).frames.shape[0] == FRAMES


def test_a_run_continues_after_its_server_was_killed(comfyui: Path, tmp_path: Path) -> None:
    graph = quickstart(seed=19)
    for node in graph.values():
        if node["class_type"] == "LetsTalkEncodeAudio":
            node["inputs"]["length_seconds"] = 4.0  # 100 frames, 7 clips, segments of 3
    with ComfyServer(comfyui, tmp_path, ("--cpu",)) as first:
        prompt_id = first.queue(graph)
        first.wait_for(prompt_id, "letstalk.clip", lambda event: event["clip"] >= 3, timeout=600)
        first.kill()
    (work,) = (path for path in (tmp_path / "output" / "letstalk_work").iterdir() if path.is_dir())
    assert (work / "so_far.mp4").exists()
    with ComfyServer(comfyui, tmp_path, ("--cpu",)) as second:
        prompt_id = second.queue(graph)
        continued = saved_video(second, second.wait(prompt_id, timeout=600), graph)
        made = [event["clip"] for event in second.events(prompt_id, "letstalk.clip")]
        assert made[:2] == [-1, 3] and not work.exists()
        graph[talking(graph)]["inputs"]["unfinished"] = "start anew"
        whole = saved_video(second, second.run(graph, timeout=600), graph)
    assert len(whole.frames) == 100 and np.array_equal(continued.frames, whole.frames)


def files(server: ComfyServer) -> list[str]:
    """Videos in ComfyUI's temp folder, finished or not."""
    return [str(path) for path in server.temp.rglob("*") if path.suffix in VIDEO_SUFFIXES or ".part" in path.name]


LOADERS = {
    "LetsTalkLoadDiT": ("model", "dit"),
    "LetsTalkLoadAutoencoder": ("autoencoder", "autoencoder"),
    "LetsTalkLoadAudioEncoder": ("audio_encoder", "audio_encoder"),
}


@pytest.fixture
def shared_models(server: ComfyServer) -> Iterator[Path]:
    """The server's folder of models, with a copy of the bundled one in `letstalk/shared`."""
    models = server.base / "models"
    shutil.copytree(DEMO_FOLDER, models / "letstalk" / "shared")
    yield models
    shutil.rmtree(models / "letstalk" / "shared")


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything in a folder."""
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def span(history: dict[str, Any]) -> tuple[int, int]:
    """When a prompt began and ended, in ms."""
    times = {kind: data["timestamp"] for kind, data in history["status"]["messages"]}
    return times["execution_start"], times["execution_success"]


def test_a_second_server_without_a_cache_shares_models_and_makes_the_same_frames(
    server: ComfyServer, shared_models: Path, comfyui: Path, tmp_path: Path
) -> None:
    graph = quickstart(seed=17)
    for node in graph.values():
        if node["class_type"] in LOADERS:
            name, kind = LOADERS[node["class_type"]]
            node["inputs"][name] = f"shared/{kind}.safetensors"
    (tmp_path / "models").symlink_to(shared_models, target_is_directory=True)
    before = listing(shared_models)
    with ComfyServer(comfyui, tmp_path, ("--cpu", "--cache-none")) as other:
        servers = (server, other)
        prompts = [each.queue(graph) for each in servers]
        histories = [each.wait(prompt) for each, prompt in zip(servers, prompts, strict=True)]
        begun, ended = zip(*map(span, histories), strict=True)
        assert max(begun) < min(ended), "they did not run at the same time"
        frames = [saved_video(s, history, graph).frames for s, history in zip(servers, histories, strict=True)]
    assert len(frames[0]) == FRAMES and np.array_equal(*frames)
    assert listing(shared_models) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="--lowvram needs a GPU")
@pytest.mark.parametrize("mode", ["--lowvram", "--novram"])
def test_little_gpu_memory_is_enough(mode: str, start_server: StartServer) -> None:
    small = start_server(mode)
    try:
        graph = quickstart(seed=18)
        assert saved_video(small, small.run(graph), graph).frames.shape[0] == FRAMES
    finally:
        small.stop()
