"""A picture and a recording are dropped, Run is clicked, and a video is there: both frontends, both renderers."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import pytest

from .conftest import Frontend

DEMO = Path(__file__).resolve().parents[2] / "letstalk_core" / "demo"
SECONDS = 0.64  # one clip


@pytest.fixture(scope="module")
def seen(frontend: Frontend, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What drops.mjs saw."""
    sound = tmp_path_factory.mktemp("drops") / "short words.wav"
    with wave.open(str(DEMO / "speech" / "hello.wav")) as whole, wave.open(str(sound), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(round(SECONDS * whole.getframerate())))
    return frontend.visit("drops.mjs", frontend.name, str(DEMO / "portraits" / "imani.jpg"), str(sound))


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_two_drops_and_one_click_make_a_video(renderer: str, frontend: Frontend, seen: dict[str, Any]) -> None:
    frontend.skip_old_vue(renderer)
    look = seen[renderer]
    assert look["image"].startswith("imani") and look["sound"].startswith("short words")
    assert look["error"] == ""
    assert {kind for _, kind in look["videos"]} == {"temp", "output"}  # of the node, and of Save Video
    assert all(abs(seconds - SECONDS) < 0.1 for seconds, _ in look["videos"])
