"""Visits to a real ComfyUI with headless Chromium. Screenshots go to `LETSTALK_ARTIFACTS`, or `out/web`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.conftest import skip_untested

if TYPE_CHECKING:
    from tests.comfy.server import ComfyServer
    from tests.conftest import StartServer

ROOT = Path(__file__).resolve().parents[2]
PLAYWRIGHT = Path.home() / ".cache" / "letstalk" / "web"
PLAYWRIGHT_VERSION = "1.65.1"
NEWEST_FRONTEND = "1.58.1"  # beside that of the ComfyUI that the tests run on
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Visit(Protocol):
    def __call__(self, script: str, *arguments: str) -> dict[str, Any]: ...


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment for the scripts; playwright-core is fetched once. Without the tools the tests are skipped."""
    chromium = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
    tools = {"Chromium": chromium, "node": shutil.which("node"), "npm": shutil.which("npm")}
    lacks = [name for name, found in tools.items() if not found]
    reason = f"there is no {', '.join(lacks)} here; CHROMIUM_PATH names a browser" if lacks else ""
    if not lacks and not (PLAYWRIGHT / "node_modules" / "playwright-core").is_dir():
        package = f"playwright-core@{PLAYWRIGHT_VERSION}"
        command = ["npm", "install", "--prefix", str(PLAYWRIGHT), "--no-audit", "--no-fund", package]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            reason = f"{package} cannot be had: {fetched.stderr[-300:]}"
    if reason:
        skip_untested(request.config, "the browser part", reason)
    return {**os.environ, "CHROMIUM_PATH": str(chromium), "PLAYWRIGHT_FOLDER": str(PLAYWRIGHT)}


@pytest.fixture(scope="session")
def newest_frontend(request: pytest.FixtureRequest) -> Path:
    """Static files of the newest frontend, fetched once. Without them the tests are skipped."""
    folder = PLAYWRIGHT.with_name(f"frontend-{NEWEST_FRONTEND}")
    static = folder / "comfyui_frontend_package" / "static"
    if not (static / "index.html").is_file():
        package = f"comfyui-frontend-package=={NEWEST_FRONTEND}"
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), package]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if fetched.returncode:
            skip_untested(
                request.config, "the newest frontend", f"{package} cannot be had: {fetched.stderr[-300:]}"
            )
    return static


@pytest.fixture(scope="session")
def visit_to(browser: dict[str, str]) -> Callable[[ComfyServer], Visit]:
    """Makes what `visit` is, for any server. No visit may raise an error in the extension."""
    artifacts = Path(os.environ.get("LETSTALK_ARTIFACTS") or ROOT / "out" / "web")
    artifacts.mkdir(parents=True, exist_ok=True)

    def of(server: ComfyServer) -> Visit:
        server.post(
            "/settings", {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False}
        )

        def run(script: str, *arguments: str) -> dict[str, Any]:
            path = Path(__file__).with_name(script)
            command = ["node", str(path), server.client.url, str(artifacts), *arguments]
            result = subprocess.run(command, env=browser, capture_output=True, text=True, timeout=1500)
            assert result.returncode == 0, f"{result.stderr}\n{server.log[-3000:]}"
            seen: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
            assert seen["errors"] == []
            return seen

        return run

    return of


@pytest.fixture(scope="session")
def visit(visit_to: Callable[[ComfyServer], Visit], server: ComfyServer) -> Visit:
    """Runs a script of this folder, which gets URL, folder of screenshots and arguments. Returns what it saw."""
    return visit_to(server)


@dataclass
class Frontend:
    """A frontend: that which ComfyUI asks for ("own") or the newest, a server with it, and visits to that."""

    name: str
    server: ComfyServer
    visit: Visit

    def skip_old_vue(self, renderer: str) -> None:
        """Frontend 1.27 has Vue nodes as an experiment, of other sizes and without panels and videos."""
        if (self.name, renderer) == ("own", "vue"):
            pytest.skip("Vue nodes are an experiment in frontend 1.27")


@pytest.fixture(scope="session", params=["own", "newest"])
def frontend(request: pytest.FixtureRequest, visit_to: Callable[[ComfyServer], Visit]) -> Frontend:
    if request.param == "own":
        server: ComfyServer = request.getfixturevalue("server")
    else:
        static: Path = request.getfixturevalue("newest_frontend")
        start: StartServer = request.getfixturevalue("start_server")
        server = start("--cpu", "--preview-method", "auto", "--front-end-root", str(static))
    return Frontend(request.param, server, visit_to(server))
