"""Crop Portrait and Paste Back: what was cut goes back, nothing else changes, and bad inputs are named."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from comfy_api.latest import InputImpl, Types
from graph_setup import DEMO_FOLDER, node
from torch import Tensor


def picture(height: int, width: int, count: int = 1) -> Tensor:
    """Smooth IMAGE; in each frame a little different."""
    y, x = torch.arange(height)[None, :, None] / height, torch.arange(width)[None, None] / width
    t = torch.arange(count)[:, None, None] / 10
    channels = [
        0.3 + 0.4 * y + 0 * x + 0.1 * t,
        0.8 - 0.5 * x + 0 * (y + t),
        0.5 + 0.3 * torch.sin(9 * x + 6 * y + t),
    ]
    return torch.stack(torch.broadcast_tensors(*channels), -1).clamp(0, 1).contiguous()


@pytest.fixture
def crop(comfy_nodes: dict[str, Any]) -> Any:
    def run(image: Tensor, **inputs: Any) -> Any:
        values = {"face": "auto", "width": 256, "height": 256, "margin": 0.6, "raise_by": 0.1, "smoothing": 5.0}
        return comfy_nodes["LetsTalkCropPortrait"].execute(image, **{**values, **inputs}).args

    return run


@pytest.fixture
def paste(comfy_nodes: dict[str, Any]) -> Any:
    def run(crop: Any, **inputs: Any) -> Any:
        values = {"feather": 0.1, "match_colour": True}
        return comfy_nodes["LetsTalkPasteBack"].execute(crop, **{**values, **inputs}).args

    return run


def box_of(crop: Any, index: int = 0) -> tuple[slice, slice]:
    found = crop.track.crops[index]
    return slice(found.y0, found.y1), slice(found.x0, found.x1)


def outside_of(crop: Any, index: int = 0) -> Tensor:
    outside = torch.ones(crop.track.image_size, dtype=torch.bool)
    outside[box_of(crop, index)] = False
    return outside


@pytest.mark.parametrize(
    ("size", "bbox"),
    [
        ((720, 1280), [(500, 200, 180, 240)]),
        ((300, 200), (150, 260, 80, 90)),  # partly outside
        ((90, 70), (10, 10, 40, 50)),  # smaller than the crop
    ],
)
@pytest.mark.parametrize("scale", [1, 4])
def test_what_was_cut_goes_back_and_the_rest_stays(
    crop: Any, paste: Any, size: tuple[int, int], bbox: Any, scale: int
) -> None:
    image = picture(*size)
    cut, way_back, mask = crop(image, bbox=bbox)
    assert tuple(cut.shape) == (1, 256, 256, 3) and cut.dtype == torch.float32
    assert tuple(mask.shape) == (1, *size)
    large = torch.nn.functional.interpolate(cut.movedim(-1, 1), scale_factor=scale, mode="bicubic")
    whole, video = paste(way_back, frames=large.movedim(1, -1))
    assert type(video).__name__ == "ExecutionBlocker"  # no video was wired
    assert whole.shape == image.shape and whole.dtype == image.dtype
    assert (whole - image).abs().max() < 0.03
    outside = outside_of(way_back)
    assert torch.equal(whole[0][outside], image[0][outside])
    assert (mask[0][outside] == 0).all() and mask[0][box_of(way_back)].max() == 1


def test_a_frame_without_a_face_passes_through(crop: Any, paste: Any) -> None:
    image = picture(120, 160, 5)
    masks = torch.zeros(5, 120, 160)
    for i in (0, 1, 3, 4):
        masks[i, 40:80, 40 + i : 80 + i] = 1
    cut, way_back, place = crop(image, mask=masks, width=64, height=64, smoothing=1.0)
    assert len(cut) == 5 and way_back.track.faces == (True, True, False, True, True)
    whole, _ = paste(way_back, frames=torch.zeros(5, 128, 128, 3), match_colour=False)
    assert torch.equal(whole[2], image[2]) and place[2].max() == 0
    for i in (0, 1, 3, 4):
        outside = outside_of(way_back, i)
        assert torch.equal(whole[i][outside], image[i][outside])
        assert whole[i][60, 60].max() == 0


def test_the_detector_is_used_when_its_weights_are_there(
    crop: Any, sub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    faces = sub("nodes.adapters.faces")
    boxes = [torch.tensor([[40.0, 30, 80, 80, 0.9]]), torch.zeros(0, 5), torch.tensor([[44.0, 30, 84, 80, 0.9]])]
    weights = tmp_path / "yunet_final.pth"
    weights.touch()
    monkeypatch.setattr(faces, "detector_weights", lambda: weights)
    monkeypatch.setattr(faces, "_detector", lambda path: lambda image: boxes[int(image[0, 0, 0]) - 1])
    video = torch.stack([torch.full((120, 160, 3), (i + 1) / 255) for i in range(3)])
    _, way_back, _ = crop(video, face="detector", width=64, height=64)
    assert way_back.track.faces == (True, False, True)
    with pytest.raises(Exception, match="finds no face in the picture; mark the face"):
        crop(video[1:2], face="detector", width=64, height=64)


def test_auto_finds_the_face_without_a_download(crop: Any, sub: Any) -> None:
    load = sub("letstalk_core.media.portrait.image").load_portrait
    scene = load(DEMO_FOLDER / "scenes" / "studio.png")[None].float() / 255
    cut, way_back, _ = crop(scene)
    assert cut.shape == (1, 256, 256, 3)
    box = way_back.track.crops[0]
    assert 510 < (box.x0 + box.x1) / 2 < 770 and 330 < (box.y0 + box.y1) / 2 < 590
    video = torch.cat([scene, torch.full_like(scene, 0.5), scene])
    assert crop(video)[1].track.faces == (True, False, True)


@pytest.mark.parametrize("size", [(120, 160), (64, 64)])  # of the picture; LoadImage's for an opaque one
def test_an_empty_mask_is_no_mask_unless_it_was_asked_for(crop: Any, size: tuple[int, int]) -> None:
    image, empty = picture(120, 160), torch.zeros(1, *size)
    _, expected, _ = crop(image, bbox=(40, 30, 60, 60), width=64, height=64)
    _, found, _ = crop(image, mask=empty, bbox=(40, 30, 60, 60), width=64, height=64)
    assert found.track == expected.track
    with pytest.raises(Exception, match=r"mask: nothing is above 0\.5 .*ComfyUI's own Load Image"):
        crop(image, mask=empty, bbox=(40, 30, 60, 60), face="mask")


def test_whole_picture_is_the_largest_middle_part(crop: Any) -> None:
    _, way_back, _ = crop(picture(100, 300), face="whole picture", width=64, height=64)
    assert box_of(way_back) == (slice(0, 100), slice(100, 200))


def test_another_background_may_be_larger(crop: Any, paste: Any) -> None:
    image = picture(120, 160)
    cut, way_back, _ = crop(image, bbox=(40, 30, 60, 60), width=64, height=64)
    larger = picture(240, 320)
    whole, _ = paste(way_back, frames=cut, image=larger)
    assert whole.shape == larger.shape and (whole - larger).abs().max() < 0.05
    with pytest.raises(Exception, match=r"image: .*belongs to a picture of 160x120"):
        paste(way_back, frames=cut, image=picture(100, 100))


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_video_keeps_its_frames_and_its_sound(
    crop: Any, paste: Any, sub: Any, tmp_path: Path, in_memory: bool
) -> None:
    image = picture(240, 320)
    cut, way_back, _ = crop(image, bbox=(100, 60, 80, 100), width=128, height=128)
    frames, sound = cut.expand(7, -1, -1, -1), 0.3 * torch.sin(torch.arange(16_000) * 0.1)[None]
    if in_memory:
        audio = {"waveform": sound[None], "sample_rate": 16_000}
        parts = Types.VideoComponents(images=frames, audio=audio, frame_rate=Fraction(10))
        video = InputImpl.VideoFromComponents(parts)
    else:
        path = tmp_path / "crop.mp4"
        with sub("letstalk_core.media.video.writer").VideoWriter(path, 10, (128, 128), (sound, 16_000)) as writer:
            writer.write((frames * 255).round().to(torch.uint8))
        video = InputImpl.VideoFromFile(str(path))
    frames, result = paste(way_back, video=video)
    assert "not read yet" in repr(frames) and frames.shape == (7, 240, 320, 3)
    parts = result.get_components()
    assert parts.images.shape == (7, 240, 320, 3) and parts.frame_rate == 10
    assert (parts.images - image).abs().mean() < 0.02
    assert (frames - image).abs().max() < 0.06 and "not read" not in repr(frames)
    assert abs(parts.audio["waveform"].shape[-1] / parts.audio["sample_rate"] - 0.7) < 0.06
    assert parts.audio["waveform"].abs().max() > 0.2
    assert Path(result.get_stream_source()).parent == sub("nodes.adapters.folders").temp_folder()


@pytest.fixture
def grey_film(sub: Any, tmp_path: Path) -> Any:
    """grey_film(frames, **options) writes a film of 64 px at 25 fps."""

    def write(frames: int, **options: Any) -> Path:
        path = tmp_path / "crop.mp4"
        with sub("letstalk_core.media.video.writer").VideoWriter(path, 25, (64, 64), **options) as writer:
            writer.write(torch.full((frames, 64, 64, 3), 99, dtype=torch.uint8))
        return path

    return write


def test_a_silent_video_in_a_buffer_goes_too(crop: Any, paste: Any, grey_film: Any) -> None:
    _, way_back, _ = crop(picture(100, 100, 3), face="whole picture", width=64, height=64)
    video = InputImpl.VideoFromFile(io.BytesIO(grey_film(3).read_bytes()))
    parts = paste(way_back, video=video)[1].get_components()
    assert len(parts.images) == 3 and parts.audio is None


@pytest.mark.parametrize("stills", [False, True])
def test_a_video_whose_length_is_only_a_claim_is_taken_at_its_frames(
    crop: Any, paste: Any, sub: Any, tmp_path: Path, stills: bool
) -> None:
    """Matroska does not count frames, and its duration is that of the sound if that is longer."""
    path = tmp_path / "crop.mkv"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("mpeg4", rate=25), container.add_stream("pcm_s16le", rate=16_000)
        video.width = video.height = 64
        video.pix_fmt, audio.layout = "yuv420p", "mono"
        for _ in range(20):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8))))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 25_600), np.int16), layout="mono")
        sound.rate = 16_000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    source = sub("nodes.adapters.video_input").open_video(InputImpl.VideoFromFile(str(path)))
    assert source.count > 30 and not source.counted
    _, way_back, _ = crop(picture(100, 100, 20), face="whole picture", width=64, height=64)
    image = picture(100, 100) if stills else None
    _, result = paste(way_back, video=InputImpl.VideoFromFile(str(path)), image=image)
    assert len(result.get_components().images) == 20
    _, shorter, _ = crop(picture(100, 100, 15), face="whole picture", width=64, height=64)
    before = {*sub("nodes.adapters.folders").temp_folder().iterdir()}
    with pytest.raises(
        sub("letstalk_core.errors").ConfigError, match="video: has at least 16 frames, but .* only 15"
    ):
        paste(shorter, video=InputImpl.VideoFromFile(str(path)), image=image)
    assert {*sub("nodes.adapters.folders").temp_folder().iterdir()} == before


def test_what_a_video_says_of_itself_stays(crop: Any, paste: Any, grey_film: Any) -> None:
    tags = {"letstalk": '{"seed": 5}', "title": "Mine"}
    _, way_back, _ = crop(picture(100, 100), face="whole picture", width=64, height=64)
    _, result = paste(way_back, video=InputImpl.VideoFromFile(str(grey_film(2, metadata=tags))))
    with av.open(result.get_stream_source()) as container:
        found = dict(container.metadata)
    assert tags.items() <= found.items()
    assert found["comment"].count("AI-generated") == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"mask": torch.zeros(1, 64, 64), "face": "mask"}, "mask: nothing is above 0.5 for the picture; mark"),
        ({"mask": torch.ones(1, 64, 64)}, "mask: mask has 64x64 pixels"),
        ({"mask": torch.ones(3, 120, 160)}, "mask: has 3 masks for 1 pictures"),
        ({"face": "mask"}, "mask: nothing is wired"),
        ({"face": "bbox"}, "bbox: nothing is wired"),
        ({"bbox": (500, 500, 20, 20)}, "bbox: box x=500.*outside"),
        ({"bbox": [(1, 2, 3)]}, "bbox: .*is not a box"),
        ({"bbox": [None]}, "bbox: has no box for the picture"),
        ({"face": "nose"}, "face: is 'nose'; must be one of"),
        ({}, "image: no face was found.*MASK.*whole picture"),
        ({"face": "detector"}, "(?s)no weights of the face detector.*MASK.*models/letstalk/face_detector"),
    ],
)
def test_bad_crops_are_named(crop: Any, inputs: dict[str, Any], message: str, monkeypatch: Any, sub: Any) -> None:
    monkeypatch.setattr(sub("nodes.adapters.faces"), "detector_weights", lambda: None)
    with pytest.raises(sub("letstalk_core.errors").LetsTalkError, match=message):
        crop(picture(120, 160), **inputs)


def test_grey_pictures_are_taken(crop: Any) -> None:
    grey, _, _ = crop(torch.rand(1, 50, 50, 1), face="whole picture")
    assert grey.shape[-1] == 3 and torch.equal(grey[..., 0], grey[..., 2])


def test_bad_pictures_are_named(crop: Any, sub: Any) -> None:
    with pytest.raises(sub("letstalk_core.errors").ConfigError, match="image: is"):
        crop(torch.zeros(0, 10, 10, 3))
    with pytest.raises(sub("letstalk_core.errors").ConfigError, match="image: has NaN"):
        crop(torch.full((1, 10, 10, 3), torch.nan), face="whole picture")
    rgba, _, _ = crop(torch.rand(1, 50, 50, 4), face="whole picture")
    assert rgba.shape[-1] == 3


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "frames, video: nothing is wired"),
        ({"frames": torch.zeros(2, 64, 64, 3), "video": object()}, "frames, video: both are wired"),
        ({"crop": {}, "frames": torch.zeros(2, 64, 64, 3)}, "crop: is a dict"),
        ({"frames": torch.zeros(1, 64, 96, 3)}, "frames: 96x64 pixels are another shape"),
        ({"frames": torch.zeros(3, 64, 64, 3)}, "frames: has 3 frames, but the picture under it only 2"),
        ({"video": torch.zeros(2, 64, 64, 3)}, "video: is a Tensor"),
        ({"frames": torch.zeros(2, 64, 64, 3), "feather": 0.9}, "feather: is 0.9; must be"),
    ],
)
def test_bad_pastes_are_named(crop: Any, paste: Any, sub: Any, inputs: dict[str, Any], message: str) -> None:
    _, way_back, _ = crop(picture(120, 160, 2), face="whole picture", width=64, height=64)
    with pytest.raises(sub("letstalk_core.errors").ConfigError, match=message):
        paste(**{"crop": way_back, **inputs})


def test_frames_that_memory_cannot_hold_are_refused(
    crop: Any, paste: Any, sub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, way_back, _ = crop(picture(120, 160, 2), face="whole picture", width=64, height=64)
    memory = sub("nodes.adapters.images").comfy.model_management
    monkeypatch.setattr(memory, "get_free_memory", lambda device: 1000)
    with pytest.raises(Exception, match="frames: 2 pictures of 160x120 take .* wire `video`"):
        paste(way_back, frames=cut)


def test_the_nodes_run_in_a_graph(run_graph: Any) -> None:
    numbers = {"face": "auto", "width": 64, "height": 64, "margin": 0.0, "raise_by": 0.0, "smoothing": 0.0}
    pasted = {"crop": ["crop", 1], "frames": ["crop", 0], "feather": 0.1, "match_colour": True}
    graph = {
        "picture": node("EmptyImage", width=200, height=100, batch_size=1, color=8388608),
        "mask": node("SolidMask", value=1.0, width=200, height=100),
        "crop": node("LetsTalkCropPortrait", image=["picture", 0], mask=["mask", 0], **numbers),
        "paste": node("LetsTalkPasteBack", **pasted),
        "shown": node("PreviewImage", images=["paste", 0]),
    }
    outputs = run_graph(graph)
    torch.testing.assert_close(outputs["paste"][0][0], outputs["picture"][0][0])
