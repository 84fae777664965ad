"""The suite tells good results from bad ones, on small drawings and without any network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.protocols import FrameSink
from letstalk_research.evaluation.suite import run_suite
from letstalk_research.evaluation.trials import draw_trial

from .pictures import shrunk

SIZE, FPS, FRAMES = 96, 25.0, 40

pytestmark = pytest.mark.usefixtures("espeak")


class Drawing:
    """A subject that draws the right answer `late` frames late, or leaves the portrait as it is."""

    fps, size, clip_frames = FPS, SIZE, 8

    def __init__(self, late: int = 0, still: bool = False, fade: float = 0.0) -> None:
        self.late, self.still, self.fade = late, still, fade

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int, steps: int | None = None) -> Tensor:
        trial = draw_trial(0, seed, frames=FRAMES, fps=FPS, size=SIZE)
        assert torch.equal(portrait, trial.portrait) and len(waveform) == FRAMES * 640
        if self.still:
            return portrait[None].repeat(FRAMES, 1, 1, 1)
        index = (torch.arange(FRAMES) - self.late).clamp(min=0)
        fading = (self.fade * torch.arange(FRAMES)).view(-1, 1, 1, 1)
        return (trial.drawing(index.tolist()).float() - fading).clamp(0, 255).to(torch.uint8)

    def stream(self, portrait: Tensor, sound: Path, sink: FrameSink, seed: int, work: Path) -> None:
        raise NotImplementedError

    def round_trip(self, frames: Tensor) -> Tensor:
        return shrunk(frames, 48)


@pytest.mark.slow
def test_right_frames_score_high_in_time_and_against_chance(tmp_path: Path) -> None:
    report = run_suite(Drawing(), clips=2, seconds=FRAMES / FPS, poses=96, out_dir=tmp_path)
    mean = {name: interval.mean for name, interval in report.metrics.items()}
    assert mean["lips correlation: jaw"] > 0.95 and mean["lips correlation: width"] > 0.9
    assert mean["lips lag: frames"] == 0
    assert mean["lips control: jaw"] < mean["lips correlation: jaw"] - 0.3
    assert 0.8 < mean["lips amplitude: jaw"] < 1.2
    assert mean["identity static pixels: generated"] < 0.5
    for kind in ("landmark error", "colour error"):  # espeak-ng's sound, and with it the drawing, repeats nearly
        assert mean[f"identity {kind}: generated"] == pytest.approx(mean[f"identity {kind}: drawing"], rel=0.02)
    assert mean["eyes blinks per minute: generated"] == mean["eyes blinks per minute: truth"]
    assert 0.8 < mean["head amplitude: yaw"] < 1.2
    assert mean["reading drawing: jaw"] > 0.95
    assert mean["identity sharpness: generated"] == pytest.approx(1, abs=0.05)
    assert mean["identity sharpness: round trip"] < 0.9
    assert 15 < mean["autoencoder PSNR: frame"] < 50
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["metrics"]["lips correlation: jaw"]["mean"] == pytest.approx(mean["lips correlation: jaw"])
    assert len(saved["clips"]["speech"]) == 2 and saved["settings"]["size"] == SIZE
    assert "| lips correlation: jaw |" in (tmp_path / "report.md").read_text()
    assert {"lips.png", "speech_drift.png", "speech_sheet_0.png"} <= {path.name for path in tmp_path.iterdir()}


def test_late_and_fading_frames_are_found_out() -> None:
    report = run_suite(Drawing(late=2, fade=0.5), clips=1, seconds=FRAMES / FPS, poses=96)
    assert report.metrics["lips lag: frames"].mean == 2
    assert report.metrics["drift per 100 frames: colour error"].mean > 30


def test_a_still_portrait_scores_nothing() -> None:
    report = run_suite(Drawing(still=True), clips=1, seconds=FRAMES / FPS, poses=32)
    assert report.metrics["lips correlation: jaw"].count == 0
    assert report.metrics["lips amplitude: jaw"].mean < 0.01
    assert report.metrics["identity static pixels: generated"].mean == 0


def test_trials_repeat_and_differ_from_each_other() -> None:
    first, again, other = (draw_trial(5, i, frames=10, fps=FPS, size=32) for i in (0, 0, 1))
    assert first.identity == again.identity != other.identity
    assert first.utterance.text == again.utterance.text
    assert len(first.waveform) == 6400 and first.drawing().shape == (10, 32, 32, 3)
    assert torch.equal(first.drawing([3]), first.drawing()[3:4])


def test_portrait_and_person_do_not_depend_on_the_speech() -> None:
    spoken, silent = (draw_trial(5, 2, frames=10, fps=FPS, size=32, speech=s) for s in (True, False))
    assert spoken.identity == silent.identity and torch.equal(spoken.portrait, silent.portrait)
    assert silent.silent(FPS).all() and not silent.waveform.any()


def test_skin_tones_take_turns() -> None:
    found = [draw_trial(0, i, frames=8, fps=FPS, size=16, speech=False).identity.skin_group for i in range(9)]
    assert found == [*range(8), 0]


def test_a_test_without_clips_is_refused() -> None:
    with pytest.raises(ConfigError, match="clips=0"):
        run_suite(Drawing(), clips=0)
