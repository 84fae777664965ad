"""A picture and a recording are dropped, Run is clicked, and a video is there: both frontends, both renderers."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.browser.conftest import Visit
    from tests.comfy.server import ComfyServer

DEMO = Path(__file__).resolve().parents[2] / "letstalk_core" / "demo"
SECONDS = 0.64  # one clip


@pytest.fixture(scope="module")
def seen(
    any_frontend: tuple[str, ComfyServer],
    visit_to: Callable[[ComfyServer], Visit],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, dict[str, Any]]:
    """Name of the frontend, and what drops.mjs saw."""
    name, server = any_frontend
    sound = tmp_path_factory.mktemp("drops") / "short words.wav"
    with wave.open(str(DEMO / "speech" / "hello.wav")) as whole, wave.open(str(sound), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(round(SECONDS * whole.getframerate())))
    return name, visit_to(server)("drops.mjs", name, str(DEMO / "portraits" / "imani.jpg"), str(sound))


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_two_drops_and_one_click_make_a_video(renderer: str, seen: tuple[str, dict[str, Any]]) -> None:
    frontend, looks = seen
    if (frontend, renderer) == ("own", "vue"):
        pytest.skip("frontend 1.27 draws no panels and no videos in its experimental Vue nodes")
    look = looks[renderer]
    assert look["image"].startswith("imani") and look["sound"].startswith("short words")
    assert look["error"] == ""
    assert {kind for _, kind in look["videos"]} == {"temp", "output"}  # of the node, and of Save Video
    assert all(abs(seconds - SECONDS) < 0.1 for seconds, _ in look["videos"])


def test_the_extension_raises_no_error(seen: tuple[str, dict[str, Any]]) -> None:
    assert seen[1]["errors"] == []
