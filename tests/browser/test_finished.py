"""The finished video shows in the node: both frontends, both renderers, with latent previews and without."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.browser.conftest import Visit
    from tests.comfy.server import ComfyServer

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
def seen(
    any_frontend: tuple[str, ComfyServer],
    visit_to: Callable[[ComfyServer], Visit],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, dict[str, Any]]:
    """Name of the frontend, and what finished.mjs saw."""
    name, server = any_frontend
    server.temp.mkdir(exist_ok=True)
    write_video(server.temp / "finished.mp4")
    picture = tmp_path_factory.mktemp("preview") / "preview.jpg"
    shutil.copy(ROOT / "js" / "demo" / "ada.jpg", picture)
    return name, visit_to(server)("finished.mjs", name, "finished.mp4", str(picture))


CASES = [(renderer, previews) for renderer in ("canvas", "vue") for previews in ("previews", "none")]


@pytest.mark.parametrize(("renderer", "previews"), CASES)
def test_the_finished_video_takes_the_place_of_the_previews(
    renderer: str, previews: str, seen: tuple[str, dict[str, Any]]
) -> None:
    frontend, looks = seen
    running, done = looks[f"{renderer}_{previews}"]["running"], looks[f"{renderer}_{previews}"]["done"]
    assert not running["videos"] and not done["failed"]
    for look in (running, done):
        assert look["imgs"] == look["blobs"] == 0, "the frontend would hold its preview for the video"
    if (frontend, renderer) == ("own", "vue"):
        return  # frontend 1.27 draws neither videos nor panels in its experimental Vue nodes
    assert running["latent"] == (previews == "previews") and not done["latent"]
    assert done["line"].startswith("2 clips · 1.3 s"), done
    (video,) = done["videos"]
    assert video["file"] == "finished.mp4" and video["ready"] >= 2 and video["shown"]


def test_the_extension_raises_no_error(seen: tuple[str, dict[str, Any]]) -> None:
    assert seen[1]["errors"] == []
