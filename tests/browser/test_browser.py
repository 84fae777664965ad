"""The web page of a real ComfyUI in headless Chromium: templates, panels, drag and drop."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.comfy.server import ComfyServer

from .conftest import Visit

ROOT = Path(__file__).resolve().parents[2]
FRAMES, FPS = 160, 25  # as browser.mjs shortens the quickstart


@pytest.fixture(scope="module")
def seen(visit: Visit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What browser.mjs saw."""
    dropped = tmp_path_factory.mktemp("dropped")
    picture, sound = dropped / "dropped picture.png", dropped / "dropped sound.wav"
    Image.new("RGB", (96, 64), (200, 120, 40)).save(picture)
    shutil.copy(ROOT / "letstalk_core" / "demo" / "speech" / "hello.wav", sound)
    return visit("browser.mjs", str(picture), str(sound))


def test_every_workflow_is_listed_and_loads_without_missing_nodes(seen: dict[str, Any]) -> None:
    assert seen["templates"].keys() == {path.stem for path in (ROOT / "workflows").glob("*.json")}
    for name, workflow in seen["templates"].items():
        assert workflow["nodes"] and not workflow["missing"], f"{name}: {workflow}"


def test_finished_stretches_play_in_the_node_while_the_rest_is_made(seen: dict[str, Any]) -> None:
    running = [panel for panel in seen["panels"] if panel["phase"] == "running"]
    lines = [panel["line"] for panel in running]
    assert lines[0].startswith("clip 1 of 10 · 0.0 s of 6.4 s"), lines
    assert any(re.match(r"clip [2-9] of 10 · [1-5]\.\d s of 6\.4 s", line) for line in lines), lines
    done = [panel["done"] for panel in running]  # looked at ten times a second, so some states may be missed
    assert done == sorted(done) and done[0] == 0 and done[-1] >= 50
    playing = [panel for panel in running if panel["ready"] >= 3 and panel["time"] > 0]
    assert playing, "no stretch played before the end"
    assert all(panel["type"] == "temp" for panel in playing)
    assert playing[0]["duration"] >= 1.9


def test_the_finished_video_shows_with_a_summary(seen: dict[str, Any]) -> None:
    assert seen["panels"][-1]["phase"] == "done"
    assert seen["panels"][-1]["line"].startswith("10 clips · 6.4 s"), seen["panels"][-1]
    for folder in ("temp", "output"):  # that of Talking Video, and that of Save Video
        (video,) = [video for video in seen["finished"] if video["type"] == folder]
        assert video["ready"] >= 2 and abs(video["duration"] - FRAMES / FPS) < 0.1, seen["finished"]


def test_the_node_does_not_outgrow_its_group(seen: dict[str, Any]) -> None:
    assert seen["below"] <= 0


def test_panels_leave_no_trace_in_saved_workflows(seen: dict[str, Any]) -> None:
    assert seen["saved_values"]["saved"] == seen["saved_values"]["widgets"]


def test_files_dropped_on_a_loader_are_uploaded_and_chosen(seen: dict[str, Any], server: ComfyServer) -> None:
    assert seen["dropped_image"] == "dropped picture.png"
    assert (server.base / "input" / "dropped picture.png").is_file()
    assert seen["previews"]["image"][0][0] == 96
    assert seen["dropped_sound"] == "dropped sound.wav"
    assert seen["previews"]["sound"][0][0] > 5
