"""The sampling nodes as a user wires them: files, sound, cancelling, guarding."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import comfy.model_management
import comfy.utils
import pytest
import torch
from graph_setup import Graph, chain, node, save_video
from sampling_setup import prepare, streams, temp_files
from torch import Tensor


@pytest.mark.parametrize(("frames", "first", "size"), [(1, 0, (64, 64)), (37, 0, (64, 96)), (37, 16, (64, 64))])
def test_the_file_has_its_frames_and_their_sound(kit: Any, frames: int, first: int, size: tuple[int, int]) -> None:
    result = kit.render.render_video(prepare(kit, frames, size, first), kit.vae, node_id="a")
    found, _, seconds = streams(result.path)
    assert found == frames - first
    assert seconds == pytest.approx((frames - first) / 25, abs=0.05)  # AAC works in blocks of 1024 samples
    assert result.video.get_dimensions() == (size[1], size[0])
    assert result.images.shape == (1, *size, 3)


def test_frames_are_those_of_decoding_the_latents_by_hand(kit: Any) -> None:
    result = kit.render.render_video(prepare(kit, 20), kit.vae, node_id="a", images="all frames")
    latents = kit.render.render_latents(prepare(kit, 20), "b")
    by_hand = kit.vae.decode(latents)[0]
    torch.testing.assert_close(result.images, by_hand, atol=1e-5, rtol=0)
    assert by_hand.std() > 0.05


def test_another_sound_replaces_the_speech_and_is_cut_like_it(kit: Any) -> None:
    audio = {"waveform": torch.zeros(1, 2, 48_000), "sample_rate": 48_000}
    result = kit.render.render_video(prepare(kit, 20), kit.vae, node_id="a", audio=audio)
    assert streams(result.path)[2] == pytest.approx(0.8, abs=0.05)


def test_another_sound_runs_beside_the_whole_recording(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Encode Audio skipped is skipped in it too."""
    used = []
    monkeypatch.setattr(kit.render, "cut_sound", lambda sound, *rest: used.append(sound) or sound)
    audio = {"waveform": torch.arange(8000.0).expand(1, 1, -1) / 8000, "sample_rate": 8000}
    run = prepare(kit, 2)
    monkeypatch.setattr(run.track, "start_seconds", 0.4)
    kit.render.render_video(run, kit.vae, node_id="a", audio=audio)
    waveform, rate = used[0]
    assert rate == 8000 and torch.equal(waveform, audio["waveform"][0, :, 3200:])
    monkeypatch.setattr(run.track, "start_seconds", 1.0)
    with pytest.raises(Exception, match=r"audio: lasts 1\.00 s, and start_seconds of Encode Audio skips 1 s"):
        kit.render.render_video(run, kit.vae, node_id="a", audio=audio)


def test_metadata_says_that_it_is_generated_and_how(kit: Any) -> None:
    settings, file_sha256 = {"seed": 1, "model": "demo"}, kit.files.file_sha256
    run = prepare(kit, 2)
    run.track.encoder_file = kit.vae.path.with_name("audio_encoder.safetensors")
    result = kit.render.render_video(run, kit.vae, node_id="a", settings=settings, prompt={"1": {}})
    with av.open(str(result.path)) as container:
        tags = dict(container.metadata)
    assert tags["comment"].startswith("AI-generated")
    said = json.loads(tags["letstalk"])
    assert said["settings"] == settings
    assert said["models_sha256"] == {
        "dit": file_sha256(kit.patcher.model.path),
        "autoencoder": file_sha256(kit.vae.path),
        "audio_encoder": file_sha256(run.track.encoder_file),
        **{n: file_sha256(kit.vae.path.with_name(f"{n}.safetensors")) for n in ("carry", "lips")},
    }
    assert json.loads(tags["prompt"]) == {"1": {}}


def test_nothing_is_loaded_again_between_clips(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    comfy.model_management.unload_all_models()
    run = prepare(kit, 48)
    with caplog.at_level("INFO"):
        kit.render.render_video(run, kit.vae, node_id="a")
    loads = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Requested to load")]
    assert len(loads) == len(set(loads)) <= 2


class Broken:
    """A VAE that fails in chosen calls; copies for float32 are made by `float32_vae`."""

    def __init__(self, vae: Any, bad: set[int], value: float) -> None:
        self.vae, self.bad, self.value, self.calls = vae, bad, value, 0
        self.latent_channels = vae.latent_channels

    def decode(self, latents: Tensor) -> Tensor:
        self.calls += 1
        images = self.vae.decode(latents)
        return torch.full_like(images, self.value) if self.calls in self.bad else images


@pytest.mark.parametrize("value", [float("nan"), 0.0, 0.7])
def test_a_bad_picture_is_decoded_again_in_float32(
    kit: Any, value: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken(kit.vae, {3}, value)  # call 1 is the portrait
    monkeypatch.setattr(kit.video, "float32_vae", lambda vae: kit.vae)
    result = kit.render.render_video(prepare(kit, 37), broken, node_id="a", images="all frames")
    assert "clip 2 of 3" in caplog.text
    good = kit.render.render_video(prepare(kit, 37), kit.vae, node_id="a", images="all frames")
    torch.testing.assert_close(result.images, good.images)


def test_a_float32_copy_of_a_bf16_autoencoder_decodes_in_float32(kit: Any, sub: Any) -> None:
    """In bf16 the result is away by its rounding; what is left in float32 is that of the weights."""
    half = sub("nodes.adapters.vae").load_vae(kit.vae.path, dtype=torch.bfloat16)
    exact = kit.video.float32_vae(half)
    latents = torch.randn(1, 64, 2, 2, 2)
    found, expected = exact.decode(latents), kit.vae.decode(latents)
    assert 0 < (found - expected).abs().mean() < (half.decode(latents) - expected).abs().mean()
    assert {p.dtype for p in exact.first_stage_model.parameters()} == {torch.float32} == {exact.vae_dtype}
    assert {p.dtype for p in half.first_stage_model.parameters()} == {torch.bfloat16} == {half.vae_dtype}


def test_a_picture_that_stays_black_is_an_error_and_leaves_no_file(
    kit: Any, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, before = Broken(kit.vae, {3, 4, 5, 6}, 0.0), temp_files(base)
    monkeypatch.setattr(kit.video, "float32_vae", lambda vae: broken)
    with pytest.raises(kit.errors.NumericalError, match="clip 2 of 3.*black.*portrait.*float32"):
        kit.render.render_video(prepare(kit, 37), broken, node_id="black")
    assert temp_files(base) <= before


def test_all_frames_are_refused_when_memory_cannot_hold_them(
    kit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(kit.errors.ConfigError, match="images.*GiB.*video output"):
        kit.video.check_image_memory(10_000_000, (512, 512))
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: 2**40)
    kit.video.check_image_memory(1000, (512, 512))
    assert "2.9 GiB" in caplog.text


def test_a_vae_of_other_latents_is_named(kit: Any) -> None:
    with pytest.raises(kit.errors.ConfigError, match="vae: has 4 latent channels"):
        kit.render.render_video(prepare(kit, 1), SimpleNamespace(latent_channels=4), node_id="a")


class Spy:
    """A node's answer as ComfyUI keeps it, and whether the frames in it were read."""

    def __init__(self, outputs: list[list[Any]]) -> None:
        self.video, self.images, _, _, self.last, self.fps, self.frames = (socket[0] for socket in outputs)

    @property
    def read(self) -> bool:
        return "not read yet" not in repr(self.images)


def test_outputs_hold_what_their_names_say_and_what_is_not_wired_costs_nothing(run_graph: Any) -> None:
    short = graph(max_frames=3)
    found = Spy(run_graph(short)["talk"])
    assert (found.fps, found.frames, len(found.images), found.images.shape[1:]) == (25.0, 3, 3, (64, 64, 3))
    assert not found.read
    first_two = node("ImageFromBatch", image=["talk", 1], batch_index=0, length=2)
    looked = run_graph({**short, "two": first_two, "shown": node("PreviewImage", images=["two", 0])})
    assert "talk" in run_graph.cached and looked["two"][0][0].shape == (2, 64, 64, 3)
    other = {"talk": wired(short, seed=5), "inverted": node("ImageInvert", image=["talk", 1])}
    exact = Spy(run_graph({**short, **other})["talk"])
    assert isinstance(exact.images, torch.Tensor) and len(exact.images) == 3
    assert torch.equal(exact.images[-1:], exact.last)  # the decoder's own, not those of the file
    assert not torch.equal(found.images[-1:], found.last)
    assert (found.images[-1:] - found.last).abs().mean() < 0.02


def wired(short: Graph, **changes: Any) -> dict[str, Any]:
    return node("LetsTalkTalkingVideo", **{**short["talk"]["inputs"], **changes})


def test_half_a_retake_is_refused(comfy_nodes: Any, kit: Any) -> None:
    with pytest.raises(kit.errors.ConfigError, match="retake_from: 2 s is set, but retake_to is 0"):
        comfy_nodes["LetsTalkTalkingVideo"].execute(vae=kit.vae, crf=18, retake_from=2.0)


def graph(**inputs: Any) -> Graph:
    """From files to a video, every node of the chain."""
    numbers = {"seed": 1, "steps": 1, "schedule": "model", "audio_scale": 1.0, "portrait_scale": 1.0}
    talk = {"model": ["model", 0], "positive": ["positive", 0], "vae": ["vae", 0], "max_frames": 20, "crf": 18}
    return {
        **chain(),
        "talk": node("LetsTalkTalkingVideo", **{**numbers, **talk, **inputs}),
        "save": save_video(["talk", 0], "talk"),
        "keep": node("LetsTalkSaveMemory", memory=["talk", 2], filename_prefix="letstalk/m"),
    }


def test_a_graph_from_files_to_a_saved_video_and_its_memory(run_graph: Any, base: Path) -> None:
    run_graph(graph())
    saved = base / "output" / run_graph.ui["save"]["images"][0]["filename"]
    assert streams(saved)[0] == 20
    shown = run_graph.ui["talk"]
    assert shown["letstalk"] == [{"clips": 2, "frames": 20, "seconds": 0.8, "model": "demo"}]
    assert (base / "temp" / shown["images"][0]["filename"]).exists()
    assert list((base / "output" / "letstalk").glob("m_*.safetensors"))
    run_graph(graph())
    assert {"talk", "save", "keep"} <= {*run_graph.cached} and run_graph.ui["talk"] == shown
    run_graph(graph(seed=2))
    assert {*graph()} - {*run_graph.cached} == {"talk", "save", "keep"}
