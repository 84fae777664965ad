"""Loader nodes: bundled files, uploads, names that are not to be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from graph_setup import PORTRAIT, SPEECH, node
from PIL import Image
from safetensors.torch import save_file

KINDS = {
    "LetsTalkLoadAutoencoder": "autoencoder",
    "LetsTalkLoadDiT": "model",
    "LetsTalkLoadAudioEncoder": "audio_encoder",
}


def load(kind: str, **inputs: Any) -> dict[str, Any]:
    """A graph of one loader; always a new one, because ComfyUI keeps fingerprints in it."""
    return {"1": node(kind, **inputs), "2": node("PreviewAny", source=["1", 0])}


def test_the_first_choice_of_every_list_is_bundled_and_loads(comfy_nodes: Any, run_graph: Any) -> None:
    for kind, name in KINDS.items():
        options = comfy_nodes[kind].GET_SCHEMA().inputs[0].options
        assert options[0].startswith("demo (bundled"), options
        more = {"weight_dtype": "default"} if kind == "LetsTalkLoadDiT" else {}
        assert run_graph(load(kind, **{name: options[0]}, **more))["1"][0][0] is not None


def test_bundled_portrait_and_speech_have_native_types(comfy_nodes: Any) -> None:
    image, mask = comfy_nodes["LetsTalkLoadPortrait"].execute(PORTRAIT).args
    assert image.dtype == torch.float32 and image.shape[0] == 1 and image.shape[-1] == 3
    assert 0 <= image.min() < image.max() <= 1
    assert mask.ndim == 3 and mask.max() == 0
    (audio,) = comfy_nodes["LetsTalkLoadSpeech"].execute(SPEECH).args
    assert audio["waveform"].ndim == 3 and audio["waveform"].dtype == torch.float32
    assert audio["sample_rate"] > 0


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_a_transparent_upload_is_what_load_image_makes_of_it(base: Path, comfy_nodes: Any, mode: str) -> None:
    """As after painting in the mask editor: alpha is 0 under the paint, and the colours are still there."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8)
    picture[..., 3] = 255
    picture[:, 30:, 3] = 0
    image = Image.fromarray(picture)
    if mode == "RGBA":
        image.save(base / "input" / "painted.png")
    else:
        image.convert("RGB").quantize(16).save(base / "input" / "painted.png", transparency=3)
    found = comfy_nodes["LetsTalkLoadPortrait"].execute("painted.png").args
    expected = comfy_nodes["LoadImage"]().load_image("painted.png")
    for ours, native in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, native)
    assert found[1].max() == 1


def test_a_config_beside_a_public_audio_encoder_is_part_of_it(base: Path, comfy_nodes: Any) -> None:
    folder = base / "models" / "audio_encoders"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"feature_extractor.conv_layers.0.conv.weight": torch.zeros(1)}, folder / "beside.safetensors")
    loader = comfy_nodes["LetsTalkLoadAudioEncoder"]
    before = loader.fingerprint_inputs(audio_encoder="beside.safetensors")
    assert "missing" not in before
    (folder / "config.json").write_text("{}")
    after = loader.fingerprint_inputs(audio_encoder="beside.safetensors")
    for name in ("config.json", "beside.safetensors"):
        (folder / name).unlink()
    assert before != after


def test_an_upload_is_loaded_again_when_it_changes(base: Path, run_graph: Any) -> None:
    path = base / "input" / "change.png"
    for value in (0, 255):
        Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(path)
        path.write_bytes(path.read_bytes() + b"\0" * value)
        assert run_graph(load("LetsTalkLoadPortrait", image="change.png"))["1"][0][0].mean() == value / 255
    run_graph(load("LetsTalkLoadPortrait", image="change.png"))
    assert "1" in run_graph.cached


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "nothing.png"])
def test_names_from_outside_are_refused_before_anything_runs(name: str, run_graph: Any) -> None:
    with pytest.raises(AssertionError, match="input folder; upload"):
        run_graph(load("LetsTalkLoadPortrait", image=name))
    with pytest.raises(AssertionError, match="input folder; upload"):
        run_graph(load("LetsTalkLoadSpeech", audio=name))
    with pytest.raises(AssertionError, match="models/letstalk or models/vae"):
        run_graph(load("LetsTalkLoadAutoencoder", autoencoder=name))


@pytest.mark.parametrize("place", ["output", "temp"])
def test_files_of_other_folders_are_named_as_comfyui_names_them(base: Path, run_graph: Any, place: str) -> None:
    (base / place / "made").mkdir(exist_ok=True)
    Image.fromarray(np.full((40, 40, 3), 51, np.uint8)).save(base / place / "made" / "one.png")
    found = run_graph(load("LetsTalkLoadPortrait", image=f"made/one.png [{place}]"))["1"][0][0]
    assert found.mean() == pytest.approx(0.2)
    with pytest.raises(AssertionError, match=f"ComfyUI's {place} folder"):
        run_graph(load("LetsTalkLoadPortrait", image=f"../../secret.png [{place}]"))


def test_what_the_native_loaders_list_is_listed(sub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.png", "b.PNG", "c.jfif", "d.wav", "e.m4v", "f.mp2", "g.mpeg", "h.txt"]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    folders = sub("nodes.adapters.folders")
    for kind, types in (("portrait", ["image"]), ("speech", ["audio", "video"])):
        native = set(folder_paths.filter_files_content_types(names, types))
        assert native <= set(folders.list_inputs(kind)) and "h.txt" not in folders.list_inputs(kind)


def test_a_missing_model_is_no_complaint_about_its_dtype(run_graph: Any) -> None:
    with pytest.raises(AssertionError) as caught:
        run_graph(load("LetsTalkLoadDiT", model="gone.safetensors", weight_dtype="default"))
    (reply,) = caught.value.messages[1].values()
    assert [error["extra_info"]["input_name"] for error in reply["errors"]] == ["model"]
