"""Talking Portrait: a picture and a recording in, a video out, by the same steps as the separate nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from graph_setup import DEMO, DEMO_FOLDER, PORTRAIT, Graph, files, node, save_video
from sampling_setup import streams


def graph(image: str = PORTRAIT, **inputs: Any) -> Graph:
    """The short graph: two loaders, the node, Save Video."""
    values = {"model": DEMO, "seed": 1, "movement": 1.0, "max_seconds": 0.2, "result": "whole picture", "steps": 1}
    wires = {"image": ["picture", 0], "audio": ["speech", 0]}
    return {
        **files(image),
        "talk": node("LetsTalkPortraitVideo", **{**wires, **values, **inputs}),
        "save": save_video(["talk", 0], "short"),
    }


@pytest.fixture(autouse=True)
def _no_detector(sub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("faces", "images"):
        monkeypatch.setattr(sub(f"nodes.adapters.{name}"), "face_detector", lambda: None)


def test_a_portrait_becomes_a_saved_video_that_plays_the_speech(run_graph: Any, base: Path) -> None:
    video, images, last, fps, frames = (s[0] for s in run_graph(graph())["talk"])
    saved = base / "output" / run_graph.ui["save"]["images"][0]["filename"]
    assert streams(saved)[0] == frames == 5 and streams(saved)[2] == pytest.approx(0.2, abs=0.07)
    assert fps == 25.0 and video.get_dimensions() == (256, 256)
    assert images.shape == (5, 256, 256, 3) and "not read yet" in repr(images)
    assert (images[-1:] - last).abs().mean() < 0.02
    assert run_graph.ui["talk"]["letstalk"][0]["frames"] == 5


def test_the_face_moves_in_its_picture_and_nothing_else_does(run_graph: Any) -> None:
    place = {"x": 510, "y": 330, "operation": "add"}
    mask = {
        "empty": node("SolidMask", value=0.0, width=1280, height=720),
        "face": node("SolidMask", value=1.0, width=260, height=260),
        "mask": node("MaskComposite", destination=["empty", 0], source=["face", 0], **place),
        "shown": node("PreviewImage", images=["talk", 1]),
    }
    outputs = run_graph({**graph("studio (bundled demo scene)", mask=["mask", 0]), **mask})
    picture, images, last = outputs["picture"][0][0], outputs["talk"][1][0], outputs["talk"][2][0]
    assert images.shape == (5, 720, 1280, 3) and torch.equal(images[-1:], last)
    changed = (images - picture).abs().amax((0, -1)) > 0.02
    rows, columns = changed.nonzero().unbind(1)
    assert changed.any() and rows.min() > 100 and columns.min() > 300 and columns.max() < 980
    crop = run_graph({**graph("studio (bundled demo scene)", mask=["mask", 0], result="face only"), **mask})
    assert crop["talk"][1][0].shape == (5, 256, 256, 3)


def test_the_video_is_that_of_the_separate_nodes(run_graph: Any, sub: Any) -> None:
    shown = {"shown": node("PreviewImage", images=["talk", 1])}
    outputs = run_graph({**graph("bo (bundled demo portrait)"), **shown})
    long = sub("nodes.adapters.portrait_video").load_bundle(DEMO)
    nodes = sub("nodes.adapters.conditioning"), sub("nodes.adapters.audio"), sub("nodes.adapters.clip_run")
    cut = {"fps": 25.0, "start_seconds": 0.0, "length_seconds": 0.2, "silence_threshold": -60.0, "normalize": True}
    heard, _ = nodes[1].encode_audio(outputs["speech"][0][0], long.audio_encoder, **cut)
    portrait = nodes[0].encode_portrait(outputs["picture"][0][0], long.vae, 256, 256)
    positive = nodes[0].make_conditioning(portrait, heard, 0, 16)[0]
    scales = {"schedule": "model", "audio_scale": 0.0, "portrait_scale": 1.0}
    run = nodes[2].prepare_run(model=long.model, positive=positive, seed=1, steps=1, **scales)
    made = sub("nodes.adapters.render").render_video(run, long.vae, node_id="x", images="all frames")
    torch.testing.assert_close(outputs["talk"][1][0], made.images, atol=1e-5, rtol=0)


def test_scales_that_change_and_more_pictures_come_over_wires(run_graph: Any) -> None:
    plain = graph("bo (bundled demo portrait)", steps=2)
    extra = {
        "scales": node("LetsTalkScaleSchedule", scales="3:1"),
        "other": node("LetsTalkLoadPortrait", image=PORTRAIT),
        "shown": node("PreviewImage", images=["talk", 1]),
    }
    frames = []
    for inputs in ({}, {"audio_scale": ["scales", 0]}, {"references": ["other", 0]}):
        talk = node("LetsTalkPortraitVideo", **plain["talk"]["inputs"], **inputs)
        frames.append(run_graph({**plain, **extra, "talk": talk})["talk"][1][0])
    assert not torch.equal(frames[0], frames[1]) and not torch.equal(frames[0], frames[2])
    assert frames[0].shape == frames[1].shape == frames[2].shape


@pytest.fixture
def folder(base: Path) -> Iterator[Path]:
    made = base / "models" / "letstalk" / "mine"
    made.mkdir(parents=True)
    for kind in ("dit", "autoencoder", "audio_encoder"):
        (made / f"{kind}.safetensors").symlink_to(DEMO_FOLDER / f"{kind}.safetensors")
    folder_paths.filename_list_cache.clear()
    yield made
    for path in made.iterdir():
        path.unlink()
    made.rmdir()
    folder_paths.filename_list_cache.clear()


def test_a_model_folder_is_a_choice_once_it_is_complete(folder: Path, sub: Any, run_graph: Any) -> None:
    folders = sub("nodes.adapters.folders")
    assert folders.list_bundles() == [DEMO, "mine"] and folders.resolve_bundle("mine") == folder
    (folder / "audio_encoder.safetensors").unlink()
    folder_paths.filename_list_cache.clear()
    assert folders.list_bundles() == [DEMO]
    for name in ("mine", "../mine"):
        with pytest.raises(AssertionError, match="no model folder"):
            run_graph(graph(model=name))


def test_a_detector_that_was_asked_for_must_be_there(run_graph: Any) -> None:
    with pytest.raises(AssertionError, match="no weights of the face detector"):
        run_graph(graph(face="detector"))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"result": "half"}, "result: is 'half'"),
        ({"face": "nose"}, "face: is 'nose'"),
        ({"face": "mask"}, "mask: nothing"),
    ],
)
def test_bad_choices_are_named(run_graph: Any, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run_graph(graph(**inputs))


def covered(sub: Any) -> torch.Tensor:
    """IMAGE of a photograph with something before the mouth."""
    picture = sub("letstalk_core.media.portrait.image").load_portrait(DEMO_FOLDER / "portraits" / "eva.jpg")
    points = sub("letstalk_core.media.portrait.find").find_face(picture).points
    lips = points[list(sub("letstalk_core.networks.face_points").LIPS), :2]
    around = 0.4 * (lips.amax(0) - lips.amin(0)).max()
    (x0, y0), (x1, y1) = (lips.amin(0) - around).int().tolist(), (lips.amax(0) + around).int().tolist()
    picture[y0:y1, x0:x1] = torch.tensor([160, 196, 216], dtype=torch.uint8)
    return picture[None].float() / 255


def test_pictures_that_will_not_do_are_refused_or_warned_of_before_sampling(
    comfy_nodes: dict[str, Any], sub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place = sub("nodes.adapters.portrait_video").place_face
    bad, nobody = covered(sub), torch.full((1, 200, 300, 3), 0.5)
    with pytest.raises(Exception, match=r"image: the mouth is covered .*, or set face to 'whole picture'"):
        place(bad, "auto", None, None, (256, 256))
    assert place(nobody, "auto", None, None, (256, 256))[0].shape == (1, 256, 256, 3)
    vae = sub("nodes.adapters.vae").load_vae(DEMO_FOLDER / "autoencoder.safetensors")
    assert not caplog.records
    for picture, words in ((bad, "image: the mouth is covered"), (nobody, "image: no face was found")):
        comfy_nodes["LetsTalkEncodePortrait"].execute(picture, vae, 64, 64)
        assert words in caplog.text
        caplog.clear()
