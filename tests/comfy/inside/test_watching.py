"""Watching a run: progress, previews, events for the browser and the files that it plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.utils
import pytest
from sampling_setup import Server, prepare, streams


@pytest.fixture
def server(kit: Any, monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()
    monkeypatch.setattr(kit.progress, "browser", lambda: found)
    return found


def test_progress_counts_every_step_of_every_clip(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: seen.append((value, total))
    )
    kit.render.render_latents(prepare(kit, 37, steps=2), "a")
    assert [value for value, _ in dict.fromkeys(seen)] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total in seen} == {6}


def test_previews_show_the_middle_of_the_clip(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import latent_preview

    pictures: list[Any] = []
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda v, t, preview, **_: pictures.append(preview))
    kit.render.render_latents(prepare(kit, 2), "a")
    assert pictures[0][1].size == (2, 2)


def test_events_come_in_order_with_files_that_play(kit: Any, server: Server, base: Path) -> None:
    run = prepare(kit, 100)
    kit.render.render_video(run, kit.vae, node_id="9:4")
    assert [e["clip"] for e in server.sent] == [-1, 0, 1, 2, 3, 4, 5, 6]
    assert [e["frames_done"] for e in server.sent] == [0, 16, 32, 48, 64, 80, 96, 100]
    assert {(e["node"], e["clips"], e["frames"], e["fps"]) for e in server.sent} == {("9:4", 7, 100, 25.0)}
    assert server.sent[0]["seconds_left"] is None
    assert server.sent[-1]["seconds_left"] == 0
    media = [(e["clip"], e["media"]) for e in server.sent if e["media"]]
    assert [clip for clip, _ in media] == [2, 5, 6]  # segments of 48 frames, clips that fit into two seconds
    found = [streams(base / "temp" / file["filename"]) for _, file in media]
    assert [frames for frames, *_ in found] == [48, 48, 4]
    assert [seconds for *_, seconds in found] == pytest.approx([48 / 25, 48 / 25, 4 / 25], abs=0.05)


def test_the_long_sampler_shows_clips_only_with_a_vae(kit: Any, server: Server) -> None:
    kit.render.render_latents(prepare(kit, 20), "1")
    assert [e["media"] for e in server.sent] == [None, None, None]
    server.sent.clear()
    kit.render.render_latents(prepare(kit, 20), "1", kit.vae)
    assert [e["media"] is not None for e in server.sent] == [False, False, True]


def test_results_stay_and_pieces_for_watching_go_after_eight_later_runs(kit: Any, server: Server) -> None:
    def run(node: str) -> Any:
        server.sent.clear()
        path = kit.render.render_video(prepare(kit, 1), kit.vae, node_id=node).path
        return path, path.parent / server.sent[-1]["media"]["filename"]

    with kit.video.TempFiles("1") as running:
        unfinished = running.next_piece()
        unfinished.touch()
        results, pieces = zip(*[run(node) for node in "1121111111"], strict=True)
        assert all(path.exists() for path in results)
        assert [path.exists() for path in pieces] == [False] * 2 + [True] * 8
        assert unfinished.exists()


@pytest.mark.parametrize("broken", ["server", "joiner"])
def test_watching_that_fails_is_logged_once_and_the_run_goes_on(
    kit: Any, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("is closed")

    if broken == "server":
        monkeypatch.setattr(server, "send_sync", fail)
    else:
        monkeypatch.setattr(kit.video, "Joiner", fail)
    result = kit.render.render_video(prepare(kit, 40), kit.vae, node_id="a")
    assert streams(result.path)[0] == 40
    assert caplog.text.count("is closed") == 1
    assert [e["clip"] for e in server.sent] == ([] if broken == "server" else [-1, 0, 1, 2])
