"""The example workflows on a real ComfyUI, with shorter speech and fewer steps than the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.comfy.server import ComfyServer
from tests.end_to_end.graphs import (
    CUT,
    FPS,
    FRAMES,
    START_SECONDS,
    enable,
    load_api,
    load_ui,
    saved_video,
    shortened,
    ui_to_api,
)
from tests.end_to_end.media import Video, read_sound, sound_begins_at

DEMO = Path(__file__).resolve().parents[2] / "letstalk_core" / "demo"
FACE = (0.5, 0.85, 0.25, 0.75)  # top, bottom, left, right of the lower face in the bundled portraits
SCENE = (1280, 720)


def graph_of(name: str) -> dict[str, Any]:
    return shortened(load_api(name))


def check_talks(video: Video, frames: int, size: tuple[int, int] = (256, 256)) -> None:
    """As many frames as the sound has, a picture in each, and a lower face that moves while corners rest."""
    assert video.fps == FPS
    assert video.frames.shape == (frames, size[1], size[0], 3)
    assert video.sound_seconds == pytest.approx(frames / FPS, abs=0.06)  # an AAC frame at 16 kHz
    means = video.frames.mean(axis=(1, 2, 3))
    assert means.min() > 30 and means.max() < 225
    assert video.frames.std(axis=(1, 2, 3)).min() > 20


def movement(frames: np.ndarray, part: tuple[float, float, float, float]) -> float:
    """Mean deviation over time of a part of the picture, of 255."""
    _, height, width, _ = frames.shape
    top, bottom, left, right = part
    cut = frames[:, int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
    return float(cut.astype(np.float32).std(axis=0).mean())


def check_lips(frames: np.ndarray) -> None:
    mouth, corner = movement(frames, FACE), movement(frames, (0.0, 0.12, 0.0, 0.12))
    assert mouth > 1.0 and mouth > 2 * corner, (mouth, corner)


def check_sync(video: Video, graph: dict[str, Any], first_frame: int = 0) -> None:
    """The sound is that of the frames: of the recording from start_seconds on."""
    (name,) = (node["inputs"]["audio"] for node in graph.values() if node["class_type"] == "LetsTalkLoadSpeech")
    (path,) = (DEMO / "speech").glob(f"{name.split()[0]}.*")
    found = sound_begins_at(video.samples, read_sound(path, video.rate)) / video.rate
    assert found == pytest.approx(START_SECONDS + first_frame / FPS, abs=0.02)


def test_the_short_graph_runs(server: ComfyServer) -> None:
    graph = graph_of("1_quickstart")
    (node,) = (node for node in graph.values() if node["class_type"] == "LetsTalkPortraitVideo")
    node["inputs"]["max_seconds"] = FRAMES / FPS
    video = saved_video(server, server.run(graph), graph)
    check_talks(video, FRAMES)
    check_lips(video.frames)


def test_two_presenters_share_a_picture(server: ComfyServer) -> None:
    graph = graph_of("9_two_presenters")
    for node in graph.values():
        if node["class_type"] == "LetsTalkEncodeAudio":
            node["inputs"].update(start_seconds=0.0, length_seconds=2 * FRAMES / FPS)
        if "duration" in node["inputs"]:
            node["inputs"]["duration"] = FRAMES / FPS
    video = saved_video(server, server.run(graph), graph)
    check_talks(video, 2 * FRAMES, (512, 256))
    left, right = video.frames[:, :, :256], video.frames[:, :, 256:]
    for speaks, listens in ((left[:FRAMES], right[:FRAMES]), (right[FRAMES:], left[FRAMES:])):
        assert movement(speaks, FACE) > 1.3 * movement(listens, FACE)


@pytest.mark.parametrize(
    ("name", "frames", "first"),
    [
        ("2_step_by_step", FRAMES, 0),
        ("3_long_video_memory", FRAMES, 0),
        ("4_native_sampler", 16, CUT),
        ("6_lora_guidance", FRAMES, 0),
        ("7_native_audio_encoder", FRAMES, 0),
    ],
)
def test_a_workflow_makes_a_face_that_says_the_sound(
    name: str, frames: int, first: int, server: ComfyServer
) -> None:
    graph = graph_of(name)
    video = saved_video(server, server.run(graph), graph)
    check_talks(video, frames)
    check_sync(video, graph, first)
    check_lips(video.frames)
    if name == "3_long_video_memory":  # which two samplers share
        assert list((server.base / "output" / "letstalk").glob("memory*.safetensors"))


def test_crop_upscale_paste_runs_with_an_upscale_model(server: ComfyServer) -> None:
    tiny_upscaler(server.base / "models" / "upscale_models" / "RealESRGAN_x2plus.safetensors")
    workflow = load_ui("5_crop_upscale_paste")
    enable(workflow, "UpscaleModelLoader", "ImageUpscaleWithModel")
    graph = ui_to_api(workflow, server.object_info())
    for node in graph.values():
        if node["class_type"] == "UpscaleModelLoader":
            node["inputs"]["model_name"] = "RealESRGAN_x2plus.safetensors"
    history = server.run(shortened(graph))
    video = saved_video(server, history, graph)
    check_talks(video, FRAMES, SCENE)
    check_sync(video, graph)


def tiny_upscaler(path: Path) -> None:
    """A super-resolution network of the Real-ESRGAN Compact kind whose convolutions are 0: it doubles pixels."""
    width = 4
    convolutions = {"body.0": (width, 3), "body.2": (width, width), "body.4": (3 * 2**2, width)}
    tensors = {f"body.{i}.weight": torch.zeros(width) for i in (1, 3)}  # PReLU
    for name, (outputs, inputs) in convolutions.items():
        tensors |= {f"{name}.weight": torch.zeros(outputs, inputs, 3, 3), f"{name}.bias": torch.zeros(outputs)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
