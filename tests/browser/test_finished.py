"""The finished video shows in the node: both frontends, both renderers, with latent previews and without."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from .conftest import Frontend

ROOT = Path(__file__).resolve().parents[2]


def write_video(path: Path) -> None:
    """Half a second of grey."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), "rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def seen(frontend: Frontend, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What finished.mjs saw."""
    temp = frontend.server.temp
    temp.mkdir(exist_ok=True)
    write_video(temp / "finished.mp4")
    picture = tmp_path_factory.mktemp("preview") / "preview.jpg"
    shutil.copy(ROOT / "js" / "demo" / "ada.jpg", picture)
    return frontend.visit("finished.mjs", frontend.name, "finished.mp4", str(picture))


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
@pytest.mark.parametrize("previews", ["previews", "none"])
def test_the_finished_video_takes_the_place_of_the_previews(
    renderer: str, previews: str, frontend: Frontend, seen: dict[str, Any]
) -> None:
    look = seen[f"{renderer}_{previews}"]
    running, done = look["running"], look["done"]
    assert not running["videos"] and not done["failed"]
    for state in (running, done):
        assert state["imgs"] == state["blobs"] == 0, "the frontend would hold its preview for the video"
    frontend.skip_old_vue(renderer)
    assert running["latent"] == (previews == "previews") and not done["latent"]
    assert done["line"].startswith("2 clips · 1.3 s"), done
    (video,) = done["videos"]
    assert video["file"] == "finished.mp4" and video["ready"] >= 2 and video["shown"]
