"""The report on one person's model: lips against the film and against chance, before and after."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.networks.face_points import NOSE_TIP
from letstalk_research.data.manifest import ClipRecord, append_records
from letstalk_research.evaluation.presenter import held_out_clips, run_presenter

FRAMES, SIDE = 40, 16
POINTS = np.random.default_rng(0).uniform(4, 12, (478, 2))


def film(phase: float) -> Tensor:
    """Frames whose first pixel says how far the mouth is open."""
    frames = torch.randint(90, 110, (FRAMES, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(3))
    frames[:, 0, 0] = (100 + 90 * torch.sin(torch.arange(FRAMES) / 3 + phase)).long()[:, None]
    return frames.to(torch.uint8)


def read(frames: Tensor) -> NDArray[np.float64]:
    """Points of a face whose lower lip is where the first pixel says, its nose where the last one does."""
    found = np.repeat(POINTS[None], len(frames), 0)
    found[:, [14, 87, 317], 1] += frames[:, 0, 0, 0].double().numpy()[:, None] / 20
    found[:, NOSE_TIP, 0] += frames[:, -1, -1, 0].double().numpy() / 20
    return found


class Speaker:
    """Says what it hears, `late` frames late; its sound is a picture of the mouth."""

    fps, size, clip_frames = 25.0, SIDE, 4

    def __init__(self, late: int) -> None:
        self.late = late

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int, steps: int | None = None) -> Tensor:
        frames = film(0.0)
        frames[:, 0, 0] = waveform[::640].roll(self.late)[:, None].to(torch.uint8)
        return frames

    def round_trip(self, frames: Tensor) -> Tensor:
        return frames if self.late == 0 else frames // 2 * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, (phase, split) in enumerate([(0.0, "val"), (1.5, "val"), (0.0, "train")]):
        frames = film(phase)
        sound = frames[:, 0, 0, 0].repeat_interleave(640).to(torch.int16)
        box = torch.tensor([2, 2, 10, 10], dtype=torch.int16).repeat(FRAMES, 3, 1)
        (tmp_path / "clips").mkdir(exist_ok=True)
        save_file({"frames": frames, "audio": sound, "regions": box}, str(tmp_path / f"clips/{i}.safetensors"))
        record = ClipRecord(id=str(i), clip=f"clips/{i}.safetensors", frames=FRAMES, split=split)
        append_records(tmp_path, [record])
    return tmp_path


def test_only_held_out_clips_are_measured(folder: Path) -> None:
    assert [clip.name for clip in held_out_clips(folder, 6, seconds=1.0)] == ["0", "1"]
    assert [len(clip.frames) for clip in held_out_clips(folder, 1, seconds=1.0)] == [25]
    (folder / "none").mkdir()
    append_records(folder / "none", [ClipRecord(id="a", clip="a.safetensors", frames=5, split="val")])
    with pytest.raises(MediaError, match="no held-out clip of at least 20 frames"):
        held_out_clips(folder / "none", 6, seconds=1.0)


def test_a_model_that_follows_the_sound_is_told_from_one_that_comes_late(folder: Path, tmp_path: Path) -> None:
    clips = held_out_clips(folder, 6, seconds=1.6)
    for clip in clips:
        object.__setattr__(clip, "waveform", clip.waveform * 32768)
    subjects = {"before": (Speaker(3), ()), "after": (Speaker(0), ("blink",))}
    report = run_presenter(subjects, film(0.0)[0], clips, read, out_dir=tmp_path / "report")  # type: ignore[arg-type]
    metrics = report.metrics
    assert metrics["after: opening: same sentence"].mean == pytest.approx(1.0)
    assert metrics["after: opening: lag in frames"].mean == 0
    assert metrics["before: opening: lag in frames"].mean == 3
    assert metrics["before: opening: same sentence"].mean == pytest.approx(math.cos(1.0), abs=0.15)
    assert metrics["after: opening: amplitude"].mean == pytest.approx(1.0)
    assert metrics["after: opening: margin"].mean == pytest.approx(1 - math.cos(1.5), abs=0.2)
    assert metrics["after: shape to the decoded film's"].mean == pytest.approx(1.0, abs=0.2)
    assert metrics["after: decode, dB: frame"].mean == 99.0 > metrics["before: decode, dB: frame"].mean
    met = {row.name: row.met for row in report.rows}
    assert met["mouth opening: generated against filmed"] and met["decode of the film, PSNR: frame"]
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert len(written["rows"]) == len(report.rows)
    assert (tmp_path / "report" / "clip_films_0.png").is_file()
