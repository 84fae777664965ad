"""The drift guard and the numerical guard in videos that are continued, and in takes of finished ones."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from letstalk_core.generate.talking_portrait import GenerateSettings, Progress, Summary, TalkingPortrait
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.media.video.segments import SegmentedVideo, segment_clips
from letstalk_core.networks.load import ModelBundle
from letstalk_core.sampling.clip import Clip
from letstalk_core.sampling.drift import DriftLog

from .command import end_at, spoiled_sampler

SEGMENT = segment_clips(25, 4)  # clips
CLIPS = 2 * SEGMENT + 4  # two whole segments, and four clips of the third
LEVEL = 0.9
SETTINGS = GenerateSettings(steps=1, seed=3, drift_level=LEVEL)
PORTRAIT = torch.arange(32 * 32 * 3).remainder(253).to(torch.uint8).view(32, 32, 3)
SPEECH = 0.3 * torch.sin(torch.arange(CLIPS * 4 * 640) / 20)


def video(folder: Path) -> SegmentedVideo:
    return SegmentedVideo(folder / "v.mp4", 25, (32, 32), folder / "work", SEGMENT * 4, encoder="libx264")


def generate(
    bundle: ModelBundle,
    folder: Path,
    *,
    keep: bool = False,
    settings: GenerateSettings = SETTINGS,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    folder.mkdir(exist_ok=True)
    work = WorkFolder(folder / "work", keep=keep)
    return TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, video(folder), settings, progress, work)


def retake(bundle: ModelBundle, folder: Path, seconds: tuple[float, float], seed: int, **options: Any) -> Summary:
    work = WorkFolder(folder / "work", keep=True)
    portrait = TalkingPortrait(bundle, **options)
    return portrait.retake(PORTRAIT, SPEECH, video(folder), work, seconds, seed, SETTINGS)


def latents(folder: Path) -> list[Tensor]:
    work = WorkFolder(folder / "work")
    found = [work.load(Clip(i, 4 * i, 4)) for i in range(CLIPS)]
    return [clip for clip in found if clip is not None]


@pytest.fixture(scope="module")
def whole(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A video that nothing disturbed, with its work folder."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, generate(bundle, folder, keep=True)


def test_a_video_continued_from_its_memory_is_the_undisturbed_one_and_so_is_its_log(
    bundle: ModelBundle, whole: tuple[Path, Summary], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        generate(bundle, tmp_path, progress=end_at(2 * SEGMENT + 2, RuntimeError("killed")))
    kept = {path.name for path in (tmp_path / "work").iterdir()}
    assert f"bank-{2 * SEGMENT:06d}.safetensors" in kept and "clip-000000.safetensors" not in kept
    seen: list[Progress] = []
    summary = generate(bundle, tmp_path, progress=seen.append)
    assert summary.resumed_clips >= 2 * SEGMENT and not (tmp_path / "work").exists()
    assert (tmp_path / "v.mp4").read_bytes() == (whole[0] / "v.mp4").read_bytes()
    log = whole[1].drift
    assert summary.drift == log and log.clips == list(range(CLIPS))
    assert {2 * SEGMENT - 1, 2 * SEGMENT} <= set(log.re_anchored)  # just before and after the saved memory
    assert seen[-1].likeness == log.lowest() and log.likeness is not None
    free = generate(bundle, tmp_path / "free", settings=replace(SETTINGS, drift_level=0.0))
    assert free.drift.scores != log.scores


def test_a_work_folder_of_format_1_is_continued_whoever_wrote_it(
    bundle: ModelBundle, whole: tuple[Path, Summary], tmp_path: Path
) -> None:
    """Written here by docs/runs.md, without the code that reads it."""
    old, new = whole[0] / "work", tmp_path / "work"
    new.mkdir()
    run = json.loads((old / "run.json").read_text())["run"]
    (new / "run.json").write_text(json.dumps({"format": 1, "run": run}))
    for name in ("clip-000000.safetensors", "clip-000001.safetensors"):
        clip = load_file(old / name)["latents"]
        digest = hashlib.sha256(clip.numpy().tobytes()).hexdigest()
        save_file({"latents": clip}, new / name, metadata={"sha256": digest})
    summary = generate(bundle, tmp_path)
    assert summary.resumed_clips == 2 and summary.drift == whole[1].drift
    assert (tmp_path / "v.mp4").read_bytes() == (whole[0] / "v.mp4").read_bytes()


def test_a_log_that_lost_a_file_says_with_which_clip_it_begins(
    bundle: ModelBundle, whole: tuple[Path, Summary], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        generate(bundle, tmp_path, progress=end_at(2 * SEGMENT + 2, RuntimeError("killed")))
    (tmp_path / "work" / "drift-000000.json").write_text('[[0, 0.5, "x"')
    summary = generate(bundle, tmp_path)
    assert summary.drift == whole[1].drift.since(SEGMENT)
    assert summary.to_dict()["drift"]["first_clip"] == SEGMENT + 1
    assert whole[1].to_dict()["drift"]["first_clip"] == 1
    assert (tmp_path / "v.mp4").read_bytes() == (whole[0] / "v.mp4").read_bytes()


def test_a_take_remembers_the_clips_before_it_as_the_video_did(bundle: ModelBundle, tmp_path: Path) -> None:
    before = generate(bundle, tmp_path, keep=True)
    assert SEGMENT - 1 in before.drift.re_anchored
    old = latents(tmp_path)
    begin = SEGMENT * 4 / 25
    after = retake(bundle, tmp_path, (begin, begin + 0.5), SETTINGS.seed)  # the same noise: the same clips
    new = latents(tmp_path)
    assert len(old) == len(new) == CLIPS
    blended = 2 * SEGMENT - 1
    assert [i for i in range(CLIPS) if not torch.equal(old[i], new[i])] in ([], [blended])
    assert after.drift.clips == list(range(CLIPS))
    assert after.drift.since(2 * SEGMENT) == before.drift.since(2 * SEGMENT)
    assert after.drift.scores[:blended] == before.drift.scores[:blended]


def test_the_log_after_a_take_has_the_new_clips(bundle: ModelBundle, tmp_path: Path) -> None:
    before = generate(bundle, tmp_path, keep=True).drift
    after = retake(bundle, tmp_path, (0, 0.5), 9)
    changed = [i for i in range(CLIPS) if before.scores[i] != after.drift.scores[i]]
    assert changed and max(changed) < SEGMENT
    assert retake(bundle, tmp_path, (0, 0.5), 9).drift == after.drift  # nothing is made, the log is there


def test_a_take_whose_clips_are_spoiled_is_sampled_in_float32(
    bundle: ModelBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: set[int] = set()
    first_time = spoiled_sampler(bundle, lambda _, clip: clip.index not in seen and not seen.add(clip.index))
    for name in ("clean", "spoiled"):
        generate(bundle, tmp_path / name, keep=True)
    retake(bundle, tmp_path / "clean", (0, 0.5), 9)
    with caplog.at_level(logging.WARNING):
        retake(bundle, tmp_path / "spoiled", (0, 0.5), 9, make_sampler=first_time)
    assert caplog.text.count("again in float32") == SEGMENT
    for clean, found in zip(latents(tmp_path / "clean"), latents(tmp_path / "spoiled"), strict=True):
        torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [[[0, 2.0, 1, 1, False]], [["0", 1, 1, 1, False]], [[0, 1]], {"a": 1}, 3])
def test_damaged_scores_are_refused(rows: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        DriftLog.from_rows(rows)
