"""Beside the packs that people have: VideoHelperSuite, KJNodes, Impact and rgthree give and take our types.

Nothing is fetched: LETSTALK_PACKS names a folder that holds their checkouts, whose packages must be installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfy.server import ComfyServer
from tests.conftest import skip_untested
from tests.end_to_end.media import read_video

PACKS = {  # folder: a node that is there when it loaded
    "ComfyUI-VideoHelperSuite": "VHS_VideoCombine",
    "ComfyUI-KJNodes": "GetImageSizeAndCount",
    "ComfyUI-Impact-Pack": "ImpactImageInfo",
    "rgthree-comfy": "Any Switch (rgthree)",
}
DEMO = Path(__file__).resolve().parents[2] / "letstalk_core" / "demo"
Needs = Callable[[str], None]
MODEL = "demo (bundled)"


@pytest.fixture(scope="module")
def packs(request: pytest.FixtureRequest) -> Path:
    named = os.environ.get("LETSTALK_PACKS")
    if not named:
        reason = f"LETSTALK_PACKS is not set: nothing is tried beside {', '.join(PACKS)}"
        skip_untested(request.config, "beside other packs", reason)
    return Path(named).resolve()


@pytest.fixture(scope="module")
def server(packs: Path, comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    base = tmp_path_factory.mktemp("packs")
    (base / "custom_nodes").mkdir()
    for name in PACKS:
        if (packs / name).is_dir():
            (base / "custom_nodes" / name).symlink_to(packs / name, target_is_directory=True)
    with ComfyServer(comfyui, base) as running:
        yield running


@pytest.fixture
def needs(server: ComfyServer, request: pytest.FixtureRequest) -> Needs:
    """`needs("KJNodes")`: skip where that pack is not there or did not load."""

    def check(pack: str) -> None:
        if PACKS[pack] not in server.object_info():
            reason = "it is not in LETSTALK_PACKS, or its packages are not installed"
            skip_untested(request.config, f"beside {pack}", reason)

    return check


def short_graph(**inputs: Any) -> dict[str, Any]:
    """Talking Portrait over bundled files: node "3"."""
    values = {"model": MODEL, "seed": 1, "movement": 1.0, "max_seconds": 0.4, "result": "face only", "steps": 2}
    return {
        "1": {"class_type": "LetsTalkLoadPortrait", "inputs": {"image": "ada (bundled demo portrait)"}},
        "2": {"class_type": "LetsTalkLoadSpeech", "inputs": {"audio": "hello (bundled demo speech)"}},
        "3": {
            "class_type": "LetsTalkPortraitVideo",
            "inputs": {"image": ["1", 0], "audio": ["2", 0], **values, **inputs},
        },
    }


def preview(image: list[Any]) -> dict[str, Any]:
    return {"class_type": "PreviewImage", "inputs": {"images": image}}


def test_video_helper_suite_combines_all_frames_with_sound(server: ComfyServer, needs: Needs) -> None:
    needs("ComfyUI-VideoHelperSuite")
    combine = {"images": ["3", 1], "frame_rate": ["3", 3], "audio": ["2", 0], "loop_count": 0}
    file = {"filename_prefix": "vhs", "format": "video/h264-mp4", "pingpong": False, "save_output": True}
    file |= {"pix_fmt": "yuv420p", "crf": 19, "save_metadata": True, "trim_to_audio": False}
    graph = {**short_graph(), "4": {"class_type": "VHS_VideoCombine", "inputs": combine | file}}
    server.run(graph)
    (path,) = (server.base / "output").glob("vhs*-audio.mp4")
    assert len(read_video(path).frames) == 10


def test_the_sound_and_the_frames_of_its_video_loader_drive_and_are_driven(
    server: ComfyServer, needs: Needs
) -> None:
    """Its AUDIO decodes when it is asked for, and its IMAGE is a whole video."""
    needs("ComfyUI-VideoHelperSuite")
    made = {**short_graph(seed=3), "4": {"class_type": "SaveVideo", "inputs": SAVED | {"video": ["3", 0]}}}
    server.run(made)
    (path,) = (server.base / "output").glob("made*.mp4")
    shutil.copy(path, server.base / "input")
    loaded = {"video": path.name, "force_rate": 0.0, "custom_width": 0, "custom_height": 0}
    loaded |= {"frame_load_cap": 0, "skip_first_frames": 0, "select_every_nth": 1}
    graph = short_graph(image=["5", 0], audio=["5", 2])
    graph["5"] = {"class_type": "VHS_LoadVideo", "inputs": loaded}
    graph["6"] = preview(["3", 2])
    history = server.run(graph)
    assert history["outputs"]["3"]["letstalk"][0]["frames"] == 10


SAVED = {"filename_prefix": "made", "format": "auto", "codec": "auto"}


@pytest.mark.parametrize(
    ("pack", "node", "inputs", "count"),
    [
        ("ComfyUI-KJNodes", "GetImageSizeAndCount", {"image": ["3", 1]}, 3),
        ("ComfyUI-Impact-Pack", "ImpactImageInfo", {"value": ["3", 1]}, 0),
    ],
)
def test_our_frames_are_counted(
    server: ComfyServer, needs: Needs, pack: str, node: str, inputs: dict[str, Any], count: int
) -> None:
    needs(pack)
    graph = {**short_graph(), "4": {"class_type": node, "inputs": inputs}}
    graph["5"] = {"class_type": "PreviewAny", "inputs": {"source": ["4", count]}}
    assert server.run(graph)["outputs"]["5"]["text"] == ["10"]


def test_rgthree_switches_our_types(server: ComfyServer, needs: Needs) -> None:
    needs("rgthree-comfy")
    switch = {"class_type": "Any Switch (rgthree)", "inputs": {"any_01": ["3", 0]}}
    saved = {"class_type": "SaveVideo", "inputs": SAVED | {"filename_prefix": "switched", "video": ["4", 0]}}
    server.run({**short_graph(), "4": switch, "5": saved})
    (path,) = (server.base / "output").glob("switched*.mp4")
    assert len(read_video(path).frames) == 10
