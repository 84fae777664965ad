"""Cached latents: how windows, memory, portraits and audio are cut, and how folders are encoded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_research.data import encoding as module
from letstalk_research.data.clips import ClipFile
from letstalk_research.data.encoding import encode_clip, encode_folder
from letstalk_research.data.latents import LatentStore, Window, draw_clips, draw_windows
from letstalk_research.data.manifest import ClipRecord, Manifest, append_records

FRAMES = 12


def add_latents(
    folder: Path, name: str, offset: int, frames: int = FRAMES, model: str = "m", lids: float | None = None
) -> None:
    """Latent frame i of a clip is filled with offset + i, its portraits with -offset - 1 and -offset - 2."""
    numbers = torch.arange(frames) + offset
    tensors = {
        "frames": numbers.view(-1, 1, 1, 1).expand(-1, 2, 2, 2).half(),
        "portraits": -torch.tensor([1, 2]).add(offset).view(-1, 1, 1, 1).expand(-1, 2, 2, 2).half(),
        "audio": numbers.view(-1, 1, 1).expand(-1, 1, 1).half(),
        "regions": numbers.view(-1, 1, 1).expand(-1, 3, 4).short(),
    }
    (folder / "latents").mkdir(parents=True, exist_ok=True)
    path = folder / "latents" / f"{name}.safetensors"
    metadata = {"autoencoder": model}
    if lids is not None:  # how far the eyes close, in one frame
        motion = torch.zeros(frames, 2)
        motion[frames // 2, 1] = lids
        yaw = numbers.view(-1, 1) / 1000
        poses = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]])
        tensors |= {"motion": torch.cat([motion, yaw], 1), "portrait_motion": poses}
        metadata = {**metadata, "motion": "jaw,blink,yaw"}
    save_file({k: v.contiguous() for k, v in tensors.items()}, str(path), metadata=metadata)
    append_records(folder, [ClipRecord(id=name, clip="x", latents=f"latents/{name}.safetensors", frames=frames)])


def store_of(folder: Path, **options: Any) -> LatentStore:
    """All that the folder holds by now."""
    store = LatentStore(folder, "train", min_frames=4, **options)
    store.update(Manifest(folder))
    return store


def draw(folder: Path, count: int = 200, **changes: Any) -> Window:
    store = store_of(folder)
    settings = dict(
        clip_frames=4, memory_frames=2, anchor_frames=1, audio_window=3, cold_start=0.0, far_portrait=0.0
    )
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(len(store), (count,), generator=generator)
    return draw_windows(store.snapshot(), clips, generator, **{**settings, **changes})


def number(latents: Tensor) -> Tensor:
    return latents[..., 0, 0, 0].int()


def test_memory_is_the_portrait_and_the_frames_just_before(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0)
    add_latents(tmp_path, "b", 100)
    window = draw(tmp_path)
    first = number(window.frames)[:, 0]
    assert torch.equal(number(window.frames), first[:, None] + torch.arange(4))
    assert torch.equal(number(window.memory)[:, 1:], first[:, None] - torch.tensor([2, 1]))
    assert torch.equal(window.memory[:, 0], window.portrait)
    assert set(first.tolist()) == {*range(2, 9), *range(102, 109)}
    assert set(number(window.portrait).tolist()) == {-1, -2, -101, -102}


def test_a_cold_start_repeats_the_portrait_and_may_begin_at_frame_0(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0)
    window = draw(tmp_path, cold_start=1.0)
    assert torch.equal(window.memory, window.portrait[:, None].expand(-1, 3, -1, -1, -1))
    assert set(number(window.frames)[:, 0].tolist()) == set(range(9))


def test_a_clip_too_short_for_memory_is_a_cold_start(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0, frames=4)
    window = draw(tmp_path, count=8)
    assert (number(window.frames)[:, 0] == 0).all()
    assert torch.equal(window.memory[:, 2], window.portrait)


def test_far_portraits_come_from_outside_the_window(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0)
    window = draw(tmp_path, far_portrait=1.0)
    outside = number(window.portrait)[:, None] != number(window.frames)
    assert outside.all()
    assert (number(window.portrait) >= 0).all()
    assert len(number(window.portrait).unique()) == FRAMES


def test_audio_windows_surround_each_frame_and_stop_at_the_clip(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0)
    add_latents(tmp_path, "b", 100)
    window = draw(tmp_path)
    frames, heard = number(window.frames), window.audio[..., 0, 0].int()
    base = torch.where(frames < 50, 0, 100)
    wanted = frames[..., None] + torch.tensor([-1, 0, 1])
    assert torch.equal(heard, wanted.clamp(max=(base + FRAMES - 1)[..., None]))
    assert torch.equal(window.regions[..., 0, 0].int(), frames)


def test_further_anchors_are_the_first_frames(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0)
    window = draw(tmp_path, anchor_frames=3)
    assert torch.equal(number(window.memory)[:, 1:3], torch.tensor([[0, 1]]).expand(200, 2))


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.15, 0.35), (0.6, 0.6, 0.8), (1.0, 1.0, 1.0)])
def test_clips_with_blinks_come_as_often_as_asked(tmp_path: Path, share: float, least: float, most: float) -> None:
    for name, lids in (("a", None), ("b", 1.0), ("c", 0.3), ("d", None)):
        add_latents(tmp_path, name, 0, lids=lids)
    clips = draw_clips(store_of(tmp_path).snapshot(), 400, torch.Generator().manual_seed(2), blinks=share)
    assert least <= float((clips == 1).float().mean()) <= most


def test_without_known_blinks_all_clips_come_alike(tmp_path: Path) -> None:
    for name in "abc":
        add_latents(tmp_path, name, 0)
    clips = draw_clips(store_of(tmp_path).snapshot(), 300, torch.Generator().manual_seed(2), blinks=1.0)
    assert min(clips.bincount(minlength=3).tolist()) > 70


@pytest.mark.parametrize("far", [0.0, 1.0])
def test_windows_hold_the_movement_of_their_frames_relative_to_the_portrait(tmp_path: Path, far: float) -> None:
    add_latents(tmp_path, "a", 0, lids=0.7)
    add_latents(tmp_path, "b", 100, lids=0.7)
    store = store_of(tmp_path, movement=("yaw", "blink"))
    window = draw_windows(
        store.snapshot(), torch.tensor([0, 1] * 50), torch.Generator().manual_seed(1), clip_frames=4,
        memory_frames=2, anchor_frames=1, audio_window=3, cold_start=0.3, far_portrait=far,
    )  # fmt: skip
    yaw, lids = window.movement.unbind(-1)
    frames, portrait = number(window.frames), number(window.portrait[:, None])
    shut = frames % 100 == FRAMES // 2
    assert shut.any() and not shut.all()
    torch.testing.assert_close(lids, shut * 0.7)
    # Portraits of a clip are filled with -1 and -2, or -101 and -102, and pose at 0.5 and -0.5.
    pose = portrait / 1000 if far else torch.where(portrait % 100 == 99, 0.5, -0.5)
    torch.testing.assert_close(yaw, frames / 1000 - pose)


def test_clips_of_which_the_movement_is_not_known_are_refused_by_name(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0)
    with pytest.raises(MediaError, match=r"a\.safetensors: does not say how yaw move in frames"):
        store_of(tmp_path, movement=("yaw",))


def test_the_store_grows_and_earlier_snapshots_stay_valid(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0)
    store, manifest = LatentStore(tmp_path, "train", min_frames=4), Manifest(tmp_path)
    store.update(manifest)
    before = store.snapshot()
    for i in range(1, 6):
        add_latents(tmp_path, f"c{i}", 100 * i)
    manifest.refresh()
    store.update(manifest)
    assert (len(before.starts), len(store.snapshot().starts)) == (1, 6)
    assert torch.equal(before.tensors["frames"][:, 0, 0, 0].int(), torch.arange(FRAMES))
    assert store.snapshot().tensors["frames"][-1, 0, 0, 0] == 511


def test_a_store_loaded_at_once_equals_one_that_grew(tmp_path: Path) -> None:
    """A resumed training reads in one go what the live one read bit by bit."""
    append_records(tmp_path, [ClipRecord(id=n, clip="x", frames=FRAMES) for n in "abcd"])
    live, manifest = LatentStore(tmp_path, "train", min_frames=4), Manifest(tmp_path)
    for number, name in enumerate("dbac"):
        add_latents(tmp_path, name, 100 * number)
        manifest.refresh()
        live.update(manifest)
    resumed = store_of(tmp_path)
    assert torch.equal(live.snapshot().tensors["frames"], resumed.snapshot().tensors["frames"])
    assert torch.equal(live.snapshot().starts, resumed.snapshot().starts)


def test_a_clip_unlike_its_manifest_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_latents(tmp_path, "a", 0)
    add_latents(tmp_path, "b", 100)
    append_records(tmp_path, [ClipRecord(id="a", clip="x", latents="latents/a.safetensors", frames=FRAMES + 1)])
    store = store_of(tmp_path)
    assert store.snapshot().tensors["frames"][0, 0, 0, 0] == 100
    assert len(store) == 1
    assert f"{FRAMES} frames" in caplog.text
    assert f"{FRAMES + 1} frames" in caplog.text


def test_latents_of_two_models_do_not_mix(tmp_path: Path) -> None:
    add_latents(tmp_path, "a", 0)
    add_latents(tmp_path, "b", 0, model="other")
    with pytest.raises(MediaError, match="other models"):
        store_of(tmp_path)


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="letstalk encode"):
        LatentStore(tmp_path, "train", min_frames=4).snapshot()


class FakeAutoencoder:
    config = SimpleNamespace(scaling_factor=0.5)

    def encode(self, x: Tensor) -> Tensor:
        return x[:, :, ::16, ::16]


def test_encoding_writes_scaled_latents_and_their_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = torch.arange(9.0).view(-1, 1, 1)
    monkeypatch.setattr(module, "encode_audio", lambda encoder, sound, fps: iter(heard.split(4)))
    clip = {"frames": torch.full((5, 32, 32, 3), 255, dtype=torch.uint8), "audio": torch.zeros(9 * 640).short()}
    clip |= {"motion": torch.full((5, 1), 0.5).half(), "portrait_motion": torch.full((1, 1), 0.25).half()}
    (tmp_path / "clips").mkdir()
    save_file(clip, str(tmp_path / "clips" / "a.safetensors"), metadata={"lead_frames": "3", "motion": "yaw"})
    append_records(tmp_path, [ClipRecord(id=n, clip=f"clips/{n}.safetensors", frames=5) for n in ("a", "gone")])
    hashes = {"autoencoder": "m", "audio_encoder": "n"}
    results = list(encode_folder(tmp_path, FakeAutoencoder(), None, hashes=hashes, noisy_copies=True))
    assert [(r.id, problem is None) for r, problem in results] == [("a", True), ("gone", False)]
    store = store_of(tmp_path, noisy=True, movement=("yaw",))
    tensors = store.snapshot().tensors
    assert torch.equal(tensors["frames"], torch.full((5, 3, 2, 2), 0.5).half())
    assert tensors["audio"].flatten().tolist() == [3, 4, 5, 6, 7]
    assert 0.001 < (tensors["frames_noisy"] - tensors["frames"]).float().std() < 0.2
    assert store.image_size == 32
    assert tensors["movement"].eq(0.5).all() and tensors["portraits_movement"].tolist() == [[0.25]]
    again = list(encode_folder(tmp_path, FakeAutoencoder(), None, hashes=hashes))
    assert [r.id for r, _ in again] == ["gone"]


def test_noise_of_noisy_copies_depends_on_the_clip_and_the_place_not_on_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "encode_audio", lambda encoder, sound, fps: iter([torch.zeros(4, 1, 1)]))
    noise = []
    for clip_id, shade in (("a", 0), ("a", 100), ("b", 0)):
        path = tmp_path / f"{clip_id}{shade}.safetensors"
        pictures = torch.full((4, 32, 32, 3), shade, dtype=torch.uint8)
        save_file({"frames": pictures, "audio": torch.zeros(4 * 640).short()}, str(path))
        found = encode_clip(ClipFile(path), FakeAutoencoder(), None, clip_id=clip_id, batch=2, noisy_copies=True)
        noise.append(torch.cat([(found[f"{n}_noisy"] - found[n]).float() for n in ("frames", "portraits")]))
    assert torch.allclose(noise[0], noise[1], atol=2e-3)  # half precision
    assert not torch.allclose(noise[0], noise[2], atol=2e-3)
    assert not torch.allclose(noise[0][:2], noise[0][2:4], atol=2e-3)
    assert not torch.allclose(noise[0][:1], noise[0][4:], atol=2e-3)
