"""The web page of a real ComfyUI in headless Chromium: templates, panels, drag and drop. Keeps screenshots.

Needs node, npm and Chromium (`CHROMIUM_PATH`, or in PATH); without them the test is skipped. Screenshots go to
`LETSTALK_ARTIFACTS`, or `out/web`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.nodes.server import ComfyServer

ROOT = Path(__file__).resolve().parents[2]
PLAYWRIGHT = Path.home() / ".cache" / "letstalk" / "web"
PLAYWRIGHT_VERSION = "1.65.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FRAMES, FPS = 96, 25  # as browser.mjs shortens the quickstart


@pytest.fixture(scope="module")
def browser() -> dict[str, str]:
    """Environment for browser.mjs; playwright-core is fetched once."""
    chromium = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
    tools = {"Chromium": chromium, "node": shutil.which("node"), "npm": shutil.which("npm")}
    lacks = [name for name, found in tools.items() if not found]
    if lacks:
        pytest.skip(f"NOT TESTED: the web page, there is no {', '.join(lacks)} here")
    if not (PLAYWRIGHT / "node_modules" / "playwright-core").is_dir():
        package = f"playwright-core@{PLAYWRIGHT_VERSION}"
        command = ["npm", "install", "--prefix", str(PLAYWRIGHT), "--no-audit", "--no-fund", package]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            pytest.skip(f"NOT TESTED: the web page, {package} cannot be had: {fetched.stderr[-300:]}")
    return {**os.environ, "CHROMIUM_PATH": str(chromium), "PLAYWRIGHT_FOLDER": str(PLAYWRIGHT)}


@pytest.fixture(scope="module")
def visit(
    browser: dict[str, str], server: ComfyServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What browser.mjs saw."""
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False})
    artifacts = Path(os.environ.get("LETSTALK_ARTIFACTS") or ROOT / "out" / "web")
    artifacts.mkdir(parents=True, exist_ok=True)
    dropped = tmp_path_factory.mktemp("dropped")
    picture, sound = dropped / "dropped picture.png", dropped / "dropped sound.wav"
    Image.new("RGB", (96, 64), (200, 120, 40)).save(picture)
    shutil.copy(ROOT / "letstalk_core" / "demo" / "speech" / "hello.wav", sound)
    script = Path(__file__).with_name("browser.mjs")
    command = ["node", str(script), server.client.url, str(artifacts), str(picture), str(sound)]
    result = subprocess.run(command, env=browser, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, f"{result.stderr}\n{server.log[-3000:]}"
    seen: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return seen


def test_every_workflow_is_listed_and_loads_without_missing_nodes(visit: dict[str, Any]) -> None:
    assert visit["templates"].keys() == {path.stem for path in (ROOT / "workflows").glob("*.json")}
    for name, workflow in visit["templates"].items():
        assert workflow["nodes"] and not workflow["missing"], f"{name}: {workflow}"


def test_finished_stretches_play_in_the_node_while_the_rest_is_made(visit: dict[str, Any]) -> None:
    running = [panel for panel in visit["panels"] if panel["phase"] == "running"]
    lines = [panel["line"] for panel in running]
    assert lines[0].startswith("clip 1 of 6 · 0.0 s of 3.8 s"), lines
    assert any(line.startswith("clip 3 of 6 · 1.3 s of 3.8 s") for line in lines), lines
    done = [panel["done"] for panel in running]
    assert done == sorted(done) and done[0] == 0 and done[-1] == 100
    playing = [panel for panel in running if panel["ready"] >= 3 and panel["time"] > 0]
    assert playing, "no stretch played before the end"
    assert all(panel["type"] == "temp" for panel in playing)
    assert playing[0]["duration"] >= 1.9


def test_the_finished_video_shows_with_a_summary(visit: dict[str, Any]) -> None:
    assert visit["panels"][-1]["phase"] == "done"
    assert visit["panels"][-1]["line"].startswith("6 clips · 3.8 s"), visit["panels"][-1]
    for folder in ("temp", "output"):  # that of Talking Video, and that of Save Video
        (video,) = [video for video in visit["finished"] if video["type"] == folder]
        assert video["ready"] >= 2 and abs(video["duration"] - FRAMES / FPS) < 0.1, visit["finished"]


def test_panels_leave_no_trace_in_saved_workflows(visit: dict[str, Any]) -> None:
    assert visit["saved_values"]["saved"] == visit["saved_values"]["widgets"]


def test_files_dropped_on_a_loader_are_uploaded_and_chosen(visit: dict[str, Any], server: ComfyServer) -> None:
    assert visit["dropped_image"] == "dropped picture.png"
    assert (server.base / "input" / "dropped picture.png").is_file()
    assert visit["previews"]["image"][0][0] == 96
    assert visit["dropped_sound"] == "dropped sound.wav"
    assert visit["previews"]["sound"][0][0] > 5


def test_the_extension_raises_no_error(visit: dict[str, Any]) -> None:
    assert visit["errors"] == []
