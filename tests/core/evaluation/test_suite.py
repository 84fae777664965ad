"""The suite tells good results from bad ones, on small drawings and without any network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from letstalk_core.data.synthetic.faces import render
from letstalk_core.data.synthetic.identity import sample_identity
from letstalk_core.data.synthetic.motion import neutral_pose, random_pose
from letstalk_core.data.synthetic.speech import espeak_version
from letstalk_core.errors import ConfigError, DependencyError
from letstalk_core.evaluation.lips import LipReader
from letstalk_core.evaluation.suite import draw_trial, run_suite

SIZE, FPS, FRAMES = 96, 25.0, 40


def blurred(frames: Tensor, side: int) -> Tensor:
    x = rearrange(frames.float(), "t h w c -> t c h w")
    x = F.interpolate(F.interpolate(x, size=side, mode="area"), size=frames.shape[1], mode="bilinear")
    return rearrange(x.round().to(torch.uint8), "t c h w -> t h w c")


class Drawing:
    """A subject that draws the right answer `late` frames late, or leaves the portrait as it is."""

    fps, size = FPS, SIZE

    def __init__(self, late: int = 0, still: bool = False, fade: float = 0.0) -> None:
        self.late, self.still, self.fade = late, still, fade

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int) -> Tensor:
        trial = draw_trial(0, seed, frames=FRAMES, fps=FPS, size=SIZE)
        assert torch.equal(portrait, trial.portrait) and len(waveform) == FRAMES * 640
        if self.still:
            return portrait[None].repeat(FRAMES, 1, 1, 1)
        index = (torch.arange(FRAMES) - self.late).clamp(min=0)
        fading = (self.fade * torch.arange(FRAMES)).view(-1, 1, 1, 1)
        return (trial.truth[index].float() - fading).clamp(0, 255).to(torch.uint8)

    def round_trip(self, frames: Tensor) -> Tensor:
        return blurred(frames, 48)


@pytest.fixture(scope="module", autouse=True)
def _needs_espeak() -> None:
    try:
        espeak_version()
    except DependencyError as error:
        pytest.skip(f"ESPEAK-NG IS MISSING, EVALUATION IS NOT TESTED: {error}")


def test_lips_are_read_from_fresh_drawings_sharp_and_blurred() -> None:
    rng = np.random.default_rng(0)
    identity = sample_identity(rng)
    reader = LipReader.fit(identity, neutral_pose(rng), rng, poses=160, size=SIZE)
    fresh = random_pose(rng, 48)
    frames = render(identity, fresh, size=SIZE)
    for pictures in (frames, blurred(frames, 48)):
        found = reader.check(pictures, fresh)
        assert found["jaw"] > 0.95 and found["width"] > 0.9 and found["round"] > 0.8


def test_a_reader_refuses_frames_of_another_size() -> None:
    rng = np.random.default_rng(0)
    reader = LipReader.fit(sample_identity(rng), neutral_pose(rng), rng, poses=16, size=32)
    with pytest.raises(ConfigError, match="32, 32, 3"):
        reader.read(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_right_frames_score_high_in_time_and_against_chance(tmp_path: Path) -> None:
    report = run_suite(Drawing(), clips=2, seconds=FRAMES / FPS, poses=96, out_dir=tmp_path)
    mean = {name: interval.mean for name, interval in report.metrics.items()}
    assert mean["lips correlation: jaw"] > 0.95 and mean["lips correlation: width"] > 0.9
    assert mean["lips lag: frames"] == 0
    assert mean["lips control: jaw"] < mean["lips correlation: jaw"] - 0.3
    assert 0.8 < mean["lips amplitude: jaw"] < 1.2
    assert mean["identity static error: portrait"] < 0.5
    assert mean["identity sharpness: generated"] == pytest.approx(1, abs=0.05)
    assert mean["identity sharpness: round trip"] < 0.9
    assert 15 < mean["autoencoder PSNR: frame"] < 50
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["metrics"]["lips correlation: jaw"]["mean"] == pytest.approx(mean["lips correlation: jaw"])
    assert len(saved["clips"]) == 2 and saved["settings"]["size"] == SIZE
    assert "| lips correlation: jaw |" in (tmp_path / "report.md").read_text()
    assert {"lips.png", "drift.png", "sheet_0.png"} <= {path.name for path in tmp_path.iterdir()}


def test_late_and_fading_frames_are_found_out() -> None:
    report = run_suite(Drawing(late=2, fade=0.5), clips=1, seconds=FRAMES / FPS, poses=96)
    assert report.metrics["lips lag: frames"].mean == 2
    assert report.metrics["drift per 100 frames: static error"].mean > 30


def test_a_still_portrait_scores_nothing() -> None:
    report = run_suite(Drawing(still=True), clips=1, seconds=FRAMES / FPS, poses=32)
    assert report.metrics["lips correlation: jaw"].count == 0
    assert report.metrics["lips amplitude: jaw"].mean < 0.01
    assert report.metrics["identity static error: portrait"].mean == 0


def test_trials_repeat_and_differ_from_each_other() -> None:
    first, again, other = (draw_trial(5, i, frames=10, fps=FPS, size=32) for i in (0, 0, 1))
    assert first.identity == again.identity != other.identity
    assert first.utterance.text == again.utterance.text
    assert len(first.waveform) == 6400 and first.truth.shape == (10, 32, 32, 3)


def test_a_test_without_clips_is_refused() -> None:
    with pytest.raises(ConfigError, match="clips=0"):
        run_suite(Drawing(), clips=0)
