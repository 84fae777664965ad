"""Clip files, random frames of them, and the manifest that lists them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from letstalk_core.errors import MediaError
from letstalk_research.data.clips import FrameSampler, flip_regions, open_clip
from letstalk_research.data.manifest import MANIFEST, ClipRecord, Manifest, append_records
from letstalk_research.data.video_clips import write_video_clip

SIZE = 32


def make_clip(folder: Path, name: str, frames: int = 5, size: int = SIZE) -> ClipRecord:
    """Frame i is filled with 10 * i, and its mouth box begins at column i."""
    pictures = torch.arange(frames).view(-1, 1, 1, 1).mul(10).expand(-1, size, size, 3).to(torch.uint8)
    boxes = torch.zeros(frames, 3, 4, dtype=torch.int16)
    boxes[:, 0] = torch.stack([torch.tensor([i, 20, i + 8, 28]) for i in range(frames)])
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    tensors = {
        "frames": pictures.contiguous(),
        "regions": boxes,
        "audio": torch.full((640 * frames,), 16384).short(),
    }
    save_file(tensors, str(folder / "clips" / f"{name}.safetensors"), metadata={"motion": "jaw, wide"})
    return ClipRecord(id=name, clip=f"clips/{name}.safetensors", frames=frames)


def test_any_frames_can_be_read_alone(tmp_path: Path) -> None:
    clip = open_clip(tmp_path, make_clip(tmp_path, "a"))
    assert clip.frame_count == 5
    assert clip.frames(2, 2)[:, 0, 0, 0].tolist() == [20, 30]
    assert clip.regions(3, 9)[:, 0, 0].tolist() == [3, 4]


def test_what_a_clip_lacks_has_a_neutral_value(tmp_path: Path) -> None:
    clip = open_clip(tmp_path, make_clip(tmp_path, "a"))
    assert torch.equal(clip.portraits(), clip.frames(0, 1))
    assert clip.motion().shape == (5, 0) and clip.portrait_motion() is None
    assert clip.lead_frames == 0
    assert clip.motion_names == ("jaw", "wide")
    assert clip.audio()[0] == 0.5


def test_a_video_clip_gives_back_its_frames_and_sound(tmp_path: Path) -> None:
    ramp = torch.linspace(40, 200, 64).expand(64, 64)
    images = torch.stack([torch.stack([ramp, ramp.T, ramp], -1) + 4 * i for i in range(14)]).to(torch.uint8)
    sound = torch.sin(torch.arange(14 * 640) / 20) / 2
    write_video_clip(tmp_path / "a.mp4", images, sound, 25)
    clip = open_clip(tmp_path, ClipRecord(id="a", clip="a.mp4", frames=14))
    assert clip.frame_count == 14
    for first, count in ((0, 14), (5, 3), (13, 1)):
        difference = clip.frames(first, count).float() - images[first : first + count].float()
        assert difference.abs().mean() < 2.5  # chroma of crf 14
    torch.testing.assert_close(clip.audio(), sound, rtol=0, atol=1e-4)


def test_flipping_swaps_sides_and_eyes() -> None:
    boxes = torch.tensor([[10, 20, 20, 28], [2, 4, 8, 9], [20, 4, 30, 9]])
    assert flip_regions(boxes, 32).tolist() == [[12, 20, 22, 28], [2, 4, 12, 9], [24, 4, 30, 9]]
    assert torch.equal(flip_regions(flip_regions(boxes, 32), 32), boxes)


def test_draws_depend_on_the_generator_alone(tmp_path: Path) -> None:
    records = [make_clip(tmp_path, name) for name in "abc"]
    draws = []
    for _ in range(2):
        sampler = FrameSampler(tmp_path, image_size=SIZE, open_files=1)
        draws.append(sampler.draw(records, 8, torch.Generator().manual_seed(3), flip=True))
    assert torch.equal(draws[0][0], draws[1][0])
    assert len(draws[0][0].unique()) > 2


def test_boxes_belong_to_the_drawn_frames_and_unreadable_clips_are_skipped_and_counted(tmp_path: Path) -> None:
    records = [make_clip(tmp_path, "a"), ClipRecord(id="gone", clip="clips/gone.safetensors", frames=5)]
    sampler = FrameSampler(tmp_path, image_size=SIZE)
    images, boxes = sampler.draw(records, 16, torch.Generator().manual_seed(0), flip=False)
    assert len(images) == 16 and torch.equal(images[:, 0, 0, 0].int() // 10, boxes[:, 0, 0].int())
    assert sampler.failures > 0


def test_clips_of_another_size_are_refused(tmp_path: Path) -> None:
    sampler = FrameSampler(tmp_path, image_size=64)
    with pytest.raises(MediaError, match="64 px"):
        sampler.draw([make_clip(tmp_path, "a")], 2, torch.Generator(), flip=False)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_clip_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(MediaError, match="a.safetensors"):
        open_clip(tmp_path, ClipRecord(id="a", clip="a.safetensors", frames=1))


# the manifest: appended to by some, read by others at the same time


def record(name: str, **changes: object) -> ClipRecord:
    return ClipRecord(**{"id": name, "clip": f"clips/{name}.safetensors", "frames": 24, **changes})  # type: ignore[arg-type]


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    records = [record("b", split="val"), record("ä", latents="latents/ä.safetensors", identity="x")]
    append_records(tmp_path, records)
    assert list(Manifest(tmp_path)) == records


def test_refresh_finds_what_was_added_since(tmp_path: Path) -> None:
    append_records(tmp_path, [record("a")])
    manifest = Manifest(tmp_path)
    append_records(tmp_path, [record("b")])
    assert (manifest.refresh(), len(manifest)) == (2, 2)


def test_refresh_stops_at_a_limit_and_goes_on_from_there(tmp_path: Path) -> None:
    append_records(tmp_path, [record(n) for n in "abcd"])
    manifest = Manifest(tmp_path / "none", missing_ok=True)
    manifest.path = tmp_path / MANIFEST
    assert manifest.refresh(2) == 2
    assert [r.id for r in manifest] == ["a", "b"]
    assert manifest.refresh() == 4


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    append_records(tmp_path, [record("a")])
    with (tmp_path / MANIFEST).open("a") as file:
        file.write('{"id": "b", "clip":')
    manifest = Manifest(tmp_path)
    assert len(manifest) == 1
    with (tmp_path / MANIFEST).open("a") as file:
        file.write(' "b.safetensors", "frames": 3}\n')
    manifest.refresh()
    assert "b" in manifest


def test_a_later_line_of_an_id_replaces_the_earlier_one(tmp_path: Path) -> None:
    append_records(tmp_path, [record("a"), record("b")])
    append_records(tmp_path, [record("a", latents="latents/a.safetensors")])
    manifest = Manifest(tmp_path)
    assert [r.id for r in manifest] == ["a", "b"]
    assert [r.id for r in manifest.select("train", with_latents=True)] == ["a"]


def test_clips_with_latents_come_in_the_order_in_which_they_got_them(tmp_path: Path) -> None:
    append_records(tmp_path, [record(n) for n in "abc"])
    live = Manifest(tmp_path)
    for name in "cab":
        append_records(tmp_path, [record(name, latents=f"latents/{name}.safetensors")])
        live.refresh()
    append_records(tmp_path, [record("c", latents="latents/c.safetensors", identity="again")])
    live.refresh()
    assert [r.id for r in live.select("train", with_latents=True)] == ["c", "a", "b"]
    assert Manifest(tmp_path).select("train", with_latents=True) == live.select("train", with_latents=True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ["line 1", "JSON"]),
        ("[]", ["line 1", "object"]),
        ('{"id": "a", "clip": "a"}', ["frames"]),
        ('{"id": "a", "clip": "a", "frames": 0}', ["frames"]),
        ('{"id": "a", "clip": "/etc/x", "frames": 1}', ["/etc/x"]),
        ('{"id": "a", "clip": "../x", "frames": 1}', ["../x"]),
        ('{"id": "a", "clip": "x", "frames": 1, "split": "test"}', ["split", "test"]),
        ('{"id": "../a", "clip": "x", "frames": 1}', ["id", "../a"]),
        ('{"id": "..", "clip": "x", "frames": 1}', ["id", "'..'"]),
        ('{"id": "a/b", "clip": "x", "frames": 1}', ["id", "a/b"]),
        ('{"id": "", "clip": "x", "frames": 1}', ["id", "''"]),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: list[str]) -> None:
    (tmp_path / MANIFEST).write_text(line + "\n")
    with pytest.raises(MediaError) as error:
        Manifest(tmp_path)
    assert [w for w in words if w not in str(error.value)] == []


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="letstalk prepare"):
        Manifest(tmp_path)
