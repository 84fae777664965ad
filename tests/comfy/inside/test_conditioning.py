"""Portrait and speech become CONDITIONING."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

import pytest
import torch
from graph_setup import DEMO_FOLDER


@pytest.fixture
def vae(sub: Any) -> Any:
    return sub("nodes.adapters.vae").load_vae(DEMO_FOLDER / "autoencoder.safetensors")


@pytest.fixture
def track(sub: Any) -> Any:
    return sub("letstalk_core.media.audio.track").AudioTrack(
        torch.randn(40, 3, 128), 25.0, waveform=torch.zeros(1, 100)
    )


def portrait(channels: int = 64, frames: int = 1) -> dict[str, Any]:
    return {"samples": torch.randn(1, channels, frames, 4, 6), "letstalk_rgb": ("factors", "bias")}


def test_a_portrait_equals_that_of_the_standalone_pipeline(vae: Any, sub: Any, comfy_nodes: Any) -> None:
    (image, _) = comfy_nodes["LetsTalkLoadPortrait"].execute("bo (bundled demo portrait)").args
    encode, fit_to = comfy_nodes["LetsTalkEncodePortrait"].execute, sub("letstalk_core.media.portrait.crop").fit_to
    (latent,), (as_authors,) = (encode(image, vae, 128, 96, as_authors=how).args for how in (False, True))
    stages = sub("letstalk_core.generate.stages").Stages(sub("letstalk_core.networks.load").load_bundle())
    path = DEMO_FOLDER / "portraits" / "bo.png"
    picture = sub("letstalk_core.media.portrait.image").load_portrait(path)
    assert tuple(latent["samples"].shape) == (1, 64, 1, 3, 4)
    for found, scaling in ((latent, "bicubic"), (as_authors, "bilinear")):
        expected = stages.encode(fit_to(picture, (96, 128), scaling))
        torch.testing.assert_close(found["samples"][:, :, 0], expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(latent["samples"], as_authors["samples"])
    factors, bias = latent["letstalk_rgb"]
    assert len(factors) == 64 and len(bias) == 3


def test_an_autoencoder_without_preview_colours_gets_them_from_the_portrait(vae: Any, sub: Any) -> None:
    vae.autoencoder_config = dataclasses.replace(vae.autoencoder_config, latent_rgb_factors=(), latent_rgb_bias=())
    latent = sub("nodes.adapters.conditioning").encode_portrait(torch.rand(1, 64, 64, 3), vae, 64, 64)
    factors, bias = latent["letstalk_rgb"]
    assert len(factors) == 64 and len(bias) == 3


@pytest.mark.parametrize(
    "shape, width, words", [((0, 64, 64, 3), 64, "image: is"), ((1, 64, 64, 3), 80, "width: 80.*use 64|96")]
)
def test_pictures_that_cannot_be_encoded_are_named(vae: Any, sub: Any, shape: Any, width: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sub("nodes.adapters.conditioning").encode_portrait(torch.rand(shape), vae, width, 64)


def test_a_video_gives_the_first_good_face_or_the_frame_that_was_asked_for(
    vae: Any, sub: Any, comfy_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, encode = sub("nodes.adapters.faces"), comfy_nodes["LetsTalkEncodePortrait"].execute
    video = torch.rand(1, 64, 64, 3) * torch.tensor([0.2, 0.4, 0.6, 0.8]).view(-1, 1, 1, 1)
    one = [encode(frame[None], vae, 64, 64).args[0]["samples"] for frame in video]
    sure = iter([[], [0.6], [0.9], [0.95]])
    monkeypatch.setattr(
        faces,
        "face_detector",
        lambda: lambda image: torch.tensor([[0, 0, 9, 9, c] for c in next(sure)]).view(-1, 5),
    )
    assert torch.equal(encode(video, vae, 64, 64).args[0]["samples"], one[2])
    assert torch.equal(encode(video, vae, 64, 64, 2).args[0]["samples"], one[1])
    monkeypatch.setattr(faces, "face_detector", lambda: None)
    assert torch.equal(encode(video, vae, 64, 64).args[0]["samples"], one[0])
    with pytest.raises(ValueError, match="frame: 5 is none of the 4 pictures"):
        encode(video, vae, 64, 64, 5)


def test_a_portrait_of_which_the_vae_keeps_too_little_is_warned_of(
    vae: Any, comfy_nodes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (image, _) = comfy_nodes["LetsTalkLoadPortrait"].execute("eva (bundled demo portrait)").args
    encode = comfy_nodes["LetsTalkEncodePortrait"].execute
    encode(image, vae, 256, 256)
    assert "keeps too little" not in caplog.text
    whole = vae.decode

    def smeared(latents: torch.Tensor) -> torch.Tensor:
        x = whole(latents)[0].movedim(-1, 1)
        return torch.nn.functional.avg_pool2d(x, 21, 1, 10).movedim(1, -1)[None]

    monkeypatch.setattr(vae, "decode", smeared)
    encode(image, vae, 256, 256)
    assert "image: the autoencoder keeps too little of this picture" in caplog.text


def test_a_grey_picture_is_a_portrait(vae: Any, comfy_nodes: Any) -> None:
    grey = torch.rand(1, 64, 64, 1)
    (found,) = comfy_nodes["LetsTalkEncodePortrait"].execute(grey, vae, 64, 64).args
    (expected,) = comfy_nodes["LetsTalkEncodePortrait"].execute(grey.expand(-1, -1, -1, 3), vae, 64, 64).args
    assert torch.equal(found["samples"], expected["samples"])


def test_positive_and_negative_differ_in_sound_only(comfy_nodes: Any, track: Any) -> None:
    node = comfy_nodes["LetsTalkConditioning"]
    positive, negative, latent, frames = node.execute(portrait(), {"letstalk_track": track}, 10, 16).args
    assert frames == 30
    assert tuple(latent["samples"].shape) == (1, 64, 16, 4, 6) and latent["samples"].count_nonzero() == 0
    (text, on), (_, off) = positive[0], negative[0]
    assert tuple(text.shape) == (1, 1, 1)
    assert on.keys() == off.keys() and on["letstalk_audio"] is off["letstalk_audio"] is track
    assert (on.pop("letstalk_audio_gain"), off.pop("letstalk_audio_gain")) == (1.0, 0.0)
    assert (on["letstalk_first_frame"], on["letstalk_portrait_gain"]) == (10, 1.0)
    assert on["letstalk_movement"] == 1.0
    assert on["letstalk_rgb"] == ("factors", "bias")
    assert tuple(on["reference_latents"][0].shape) == (1, 64, 1, 4, 6)


def test_given_movement_reaches_the_network(comfy_nodes: Any, track: Any, kit: Any, sub: Any) -> None:
    make_curves, condition = (comfy_nodes[f"LetsTalk{name}"].execute for name in ("MotionCurves", "Conditioning"))
    curves = make_curves(["neutral"], [1.0], [False], yaw=[[0.0, 0.2, 0.4]]).args[0]
    model, conditions = kit.patcher.model, sub("nodes.adapters.conditions").model_conditions
    latent, rows = portrait(), []
    for motion in (None, curves):
        positive, _, empty, _ = condition(latent, {"letstalk_track": track}, 0, 16, motion=motion).args
        values = {"noise": empty["samples"], "device": "cpu", "seed": 1, **positive[0][1]}
        rows.append(conditions(model.dit_config, model.projection_config, **values)["movement"][0])
    drawn, given = rows
    yaw = list(model.projection_config.movement).index("yaw")
    assert given[:4, yaw].tolist() == pytest.approx([0, 0.2, 0.4, 0.4])
    same = (given == drawn).all(0)
    assert [i for i in range(len(same)) if not same[i]] == [yaw]


def test_a_latent_may_be_any_mapping(comfy_nodes: Any, track: Any) -> None:
    lazy = MappingProxyType(portrait()), MappingProxyType({"letstalk_track": track})
    positive, _, latent, frames = comfy_nodes["LetsTalkConditioning"].execute(*lazy, 0, 16).args
    assert frames == 40 and tuple(latent["samples"].shape) == (1, 64, 16, 4, 6)
    assert positive[0][1]["letstalk_rgb"] == ("factors", "bias")


def test_conditions_that_cannot_work_are_named(comfy_nodes: Any, track: Any) -> None:
    execute = comfy_nodes["LetsTalkConditioning"].execute
    sound = {"letstalk_track": track}
    with pytest.raises(ValueError, match="first_frame: 40.*40 frames"):
        execute(portrait(), sound, 40, 16)
    with pytest.raises(ValueError, match="movement: is -1"):
        execute(portrait(), sound, 0, 16, -1.0)
    with pytest.raises(ValueError, match="portrait: has shape"):
        execute(portrait(frames=2), sound, 0, 16)
    with pytest.raises(ValueError, match="audio: was not timed"):
        execute(portrait(), {"encoded_audio": torch.zeros(1, 5, 768)}, 0, 16)


def test_one_way_into_encode_audio_is_needed(comfy_nodes: Any) -> None:
    audio = {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 16000}
    with pytest.raises(ValueError, match="audio_encoder, encoder_output: connect one"):
        cut = {"fps": 25.0, "start_seconds": 0.0, "length_seconds": 0.0}
        comfy_nodes["LetsTalkEncodeAudio"].execute(audio, silence_threshold=-60.0, **cut)
