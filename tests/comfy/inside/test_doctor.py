"""The doctor reports what is there, measures what is wired, and never fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graph_setup import DEMO_FOLDER, node


@pytest.fixture
def examine(comfy_nodes: dict[str, Any]) -> Any:
    def run(**wired: Any) -> str:
        result = comfy_nodes["LetsTalkDoctor"].execute(12, True, **wired)
        assert result.ui.as_dict() == {"text": (result.args[0],)}
        return str(result.args[0])

    return run


def test_without_anything_wired_it_reports_what_is_there(examine: Any, sub: Any) -> None:
    text = examine()
    assert f"LetsTalk {sub('letstalk_core').__version__}, ComfyUI " in text
    parts = ("torch", "transformers", "av", "attention: ", "RAM: ", "latent previews: none", "video encoder: ")
    assert [part for part in parts if part not in text] == []
    digest = sub("letstalk_core.files").file_sha256(DEMO_FOLDER / "dit.safetensors")
    assert f"sha256 {digest[:12]}" in text
    assert text.count("for photographs and drawn faces") == 3
    assert "f32c64" in text and "wire a model" in text


def test_it_ends_with_what_to_do_one_line_each(examine: Any, base: Path) -> None:
    (base / "output" / "letstalk_work" / "auto-1").mkdir(parents=True)
    title, *lines = examine().split("\n\n")[-1].splitlines()
    assert title == "What to do next" and all(line.startswith("  ") for line in lines)
    for words in ("holds 1 unfinished", "put a model folder", "wire model, vae"):
        assert sum(words in line for line in lines) == 1, words
    assert "so that faces are found" not in examine()


def test_what_is_wired_is_measured(examine: Any, sub: Any) -> None:
    model = sub("nodes.adapters.model").load_dit(DEMO_FOLDER / "dit.safetensors", "default")
    vae = sub("nodes.adapters.vae").load_vae(DEMO_FOLDER / "autoencoder.safetensors")
    encoder = sub("nodes.adapters.audio").load_audio_encoder(DEMO_FOLDER / "audio_encoder.safetensors")
    text = examine(model=model, vae=vae, audio_encoder=encoder)
    assert "could not" not in text
    assert "one step of a clip of 16 frames (2 passes, audio guidance on): " in text
    assert "decoding a clip of 16 frames: " in text and "encoding one second of sound: " in text
    assert "expected for one second of video at 12 steps: " in text


def test_things_of_another_kind_are_told_not_raised(examine: Any) -> None:
    class Wrong:
        model = torch.nn.Linear(1, 1)
        latent_channels = 4

        def decode(self, latents: Any) -> Any:
            raise RuntimeError("out of memory\nand more")

    text = examine(model=Wrong(), vae=Wrong(), audio_encoder=Wrong())
    assert "model: a Linear, not a LetsTalk model" in text
    assert "could not be measured (out of memory)" in text
    assert "encoding one second of sound: could not be measured" in text


def test_a_broken_part_becomes_a_line(
    examine: Any, sub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    doctor = sub("nodes.adapters.doctor")
    monkeypatch.setattr(doctor, "detector_weights", lambda: None)
    monkeypatch.setattr(doctor, "resolve_model", lambda kind, name: tmp_path / "gone.safetensors")
    text = examine()
    assert "could not be found out: FileNotFoundError" in text
    assert "face detector: no weights" in text and "models/letstalk/face_detector" in text
    monkeypatch.setattr(doctor, "detector_weights", lambda: tmp_path / "yunet.pth")
    assert f"face detector: {tmp_path / 'yunet.pth'}" in examine()


def test_cancelling_is_not_swallowed(examine: Any, sub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    management = sub("nodes.adapters.doctor").mm

    def cancelled() -> None:
        raise management.InterruptProcessingException

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancelled)
    with pytest.raises(management.InterruptProcessingException):
        examine()


def test_it_runs_alone_in_a_graph_and_never_from_the_cache(run_graph: Any) -> None:
    graph = {"doctor": node("LetsTalkDoctor", steps=4, audio_guidance=False)}
    text = run_graph(graph)["doctor"][0][0]
    assert run_graph.ui["doctor"]["text"] == [text]
    run_graph(graph)
    assert run_graph.cached == []
