"""Videos into clips: shots, crops, filters and their reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.portrait.scene import Scene
from letstalk_research.data.clips import open_clip
from letstalk_research.data.manifest import Manifest
from letstalk_research.data.prepare import prepare_videos
from letstalk_research.data.shots import PrepareSettings, Shot, find_shots, hold_out
from letstalk_research.data.video_clips import write_video_clip

WIDTH, HEIGHT = 128, 96


def textured(seconds: float, seed: int, brightness: float = 130.0) -> Tensor:
    """Still noise with a white square at x 70..100, y 30..60, the face."""
    generator = torch.Generator().manual_seed(seed)
    picture = brightness + 40 * torch.randn(HEIGHT // 4, WIDTH // 4, 1, generator=generator)
    picture = picture.repeat_interleave(4, 0).repeat_interleave(4, 1).expand(-1, -1, 3).clone()
    picture[30:60, 70:100] = 255
    picture[44:46, 74:96] = 60  # a mouth, without which the face would count as blurred
    return picture.clamp(0, 255).to(torch.uint8).expand(round(seconds * 25), -1, -1, -1)


def write(path: Path, *shots: Tensor, sound: float = 0.3) -> Path:
    images = torch.cat(shots)
    write_video_clip(path, images.contiguous(), sound * torch.sin(torch.arange(len(images) * 640) / 15), 25)
    return path


def find_square(image: Tensor) -> Tensor:
    """A detector of the white square."""
    bright = (image.float().mean(-1) > 235).float()
    ys, xs = bright.mean(1) > 0.15, bright.mean(0) > 0.15
    if not ys.any() or not xs.any():
        return torch.zeros(0, 5)
    y, x = ys.nonzero().flatten(), xs.nonzero().flatten()
    return torch.tensor([[x[0].item(), y[0].item(), x[-1].item() + 1, y[-1].item() + 1, 0.9]])


SETTINGS = PrepareSettings(size=32, min_seconds=0.4, max_seconds=1.0)


def test_shots_end_at_cuts_and_at_the_longest_length(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", textured(1.4, 1), textured(0.6, 2, 60), textured(0.2, 3, 200))
    reasons: Counter[str] = Counter()
    shots = list(find_shots(video, SETTINGS, None, reasons))
    assert [(s.first, s.count) for s in shots] == [(0, 25), (25, 10), (35, 15)]
    assert reasons == {"too short": 1}
    assert {(s.x0, s.y0, s.side) for s in shots} == {(16, 0, 96)}


def test_the_crop_follows_the_face_and_guesses_mouth_and_eyes(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", textured(0.8, 1))
    report = prepare_videos([video], tmp_path / "out", SETTINGS, find_square)
    assert (report.clips, report.frames, dict(report.reasons)) == (1, 20, {})
    (record,) = Manifest(tmp_path / "out")
    clip = open_clip(tmp_path / "out", record)
    frames, (mouth, left, right) = clip.frames(), clip.regions()[7].tolist()
    assert tuple(frames.shape) == (20, 32, 32, 3)
    assert frames[0, 13, 16].min() > 200  # the face is in the middle
    assert 8 < mouth[0] < mouth[2] < 24
    assert mouth[1] > max(left[3], right[3]) > 8
    assert left[2] <= right[0]
    assert clip.audio().abs().max() > 0.2


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    faceless = textured(0.8, 1).clone()
    faceless[:, 20:70, 60:110] = 90
    videos = [
        write(tmp_path / "dark.mp4", torch.zeros(20, HEIGHT, WIDTH, 3, dtype=torch.uint8)),
        write(tmp_path / "plain.mp4", torch.full((20, HEIGHT, WIDTH, 3), 120, dtype=torch.uint8)),
        write(tmp_path / "faceless.mp4", faceless),
        write(tmp_path / "mute.mp4", textured(0.8, 4), sound=0.0),
        tmp_path / "broken.mp4",
        tmp_path / "missing.mp4",
    ]
    report = prepare_videos(videos, tmp_path / "out", SETTINGS, find_square)
    assert report.clips == 0
    assert report.reasons == {"too dark": 1, "blurred": 1, "no face": 1, "silent": 1, "unreadable": 2}


def test_a_second_run_keeps_what_is_there(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", textured(0.8, 1))
    settings = PrepareSettings(size=32, min_seconds=0.4, box=(60, 20, 108, 68), video_format="safetensors")
    assert prepare_videos([video], tmp_path / "out", settings).clips == 1
    assert prepare_videos([video], tmp_path / "out", settings).clips == 0
    (record,) = Manifest(tmp_path / "out")
    assert open_clip(tmp_path / "out", record).frames(0, 1)[0, 12, 15].min() > 200


def test_a_box_outside_the_picture_is_refused(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", textured(0.8, 1))
    with pytest.raises(ConfigError, match="128x96"):
        prepare_videos([video], tmp_path / "out", PrepareSettings(size=32, min_seconds=0.4, box=(0, 0, 200, 90)))


@pytest.mark.parametrize("values", [{"size": 100}, {"min_seconds": 0.0}, {"box": (5, 5, 5, 9)}])
def test_bad_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PrepareSettings(**values)  # type: ignore[arg-type]


def test_the_crop_is_that_of_generate(tmp_path: Path) -> None:
    picture = textured(0.8, 1)
    video = write(tmp_path / "v.mp4", picture)
    (shot,) = find_shots(video, SETTINGS, find_square, Counter())
    crop = Scene.find(picture[0], (32, 32), find_square).crop
    assert (shot.x0, shot.y0, shot.side) == pytest.approx((crop.x0, crop.y0, crop.x1 - crop.x0), abs=1)


def test_one_recording_is_trained_on_and_its_end_validated(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", textured(4.0, 1))
    prepare_videos([video], tmp_path / "out", replace(SETTINGS, val_share=0.2))
    records = list(Manifest(tmp_path / "out"))
    assert [(r.split, r.frames) for r in records] == [("train", 25)] * 3 + [("val", 25)]


def test_time_is_split_over_all_videos_and_a_shot_is_cut_where_both_parts_are_long_enough() -> None:
    videos = [(Path(name), [Shot(0, 50, 0, 0, 9), Shot(50, 50, 0, 0, 9)]) for name in ("a", "b")]

    def held(share: float) -> list[list[tuple[int, int, str]]]:
        settings = replace(SETTINGS, val_share=share)
        return [[(s.first, s.count, s.split) for s in shots] for _, shots in hold_out(videos, settings)]

    assert held(0.1) == [
        [(0, 50, "train"), (50, 50, "train")],
        [(0, 50, "train"), (50, 30, "train"), (80, 20, "val")],
    ]
    assert held(0.02)[1] == [(0, 50, "train"), (50, 50, "train")]  # 4 frames would be no clip
    assert held(0.73)[0] == [(0, 50, "train"), (50, 50, "val")]
    assert [s for shots in held(0.73) for _, _, s in shots] == ["train", "val", "val", "val"]
