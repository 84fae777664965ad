"""One long video in parts: planned without gaps, made with the whole recording in view, joined unseen."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.cli import run_generate as generate
from letstalk_core.cli.info import describe
from letstalk_core.generate.parts import Part, find_parts, plan_part
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.talking_portrait import GenerateSettings, TalkingPortrait
from letstalk_core.media.audio.decode import load_waveform
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.scene import Scene
from letstalk_core.networks.load import DEMO_FOLDER, load_bundle
from letstalk_research.data.synthetic.speech import write_wav

from .media import read_frames, tone
from .test_cli_batch import Killed, batch, refused, rows

__all__ = ["batch"]


def write_speech(path: Path, stretches: int) -> Path:
    """So many stretches of two seconds of tone, each before a pause of 0.6 s."""
    write_wav(path, np.tile(np.concatenate([tone(2.0), np.zeros(9600)]), stretches))
    return path


@given(
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=6, unique=True).map(sorted),
    clip_frames=st.integers(1, 40),
)
def test_parts_make_every_frame_once_with_noise_of_its_own(cuts: list[int], clip_frames: int) -> None:
    edges = [0, *cuts]
    parts = [Part(n, a, b - a) for n, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True))]
    clips = [clip for part in parts for clip in plan_part(part, clip_frames)]
    assert [f for clip in clips for f in range(clip.first, clip.first + clip.count)] == list(range(cuts[-1]))
    indices = [clip.index for clip in clips]
    assert indices == sorted(set(indices))


def test_the_first_part_is_the_begin_of_the_single_run(tiny_bundle: Path, tmp_path: Path) -> None:
    portrait = torch.arange(32 * 32 * 3).remainder(253).to(torch.uint8).view(32, 32, 3)
    sound = write_speech(tmp_path / "speech.wav", 3)
    model = TalkingPortrait(load_bundle(tiny_bundle))
    first, *others = find_parts(sound_of := load_waveform(sound), 25.0, 2.0)

    def make(part: Part | None) -> Tensor:
        sink = KeptFrames()
        summary = model.generate(portrait, sound_of, sink, GenerateSettings(steps=1), part=part)
        assert (summary.frames, sink.state) == (len(sink.video), "closed")
        return sink.video

    whole, begin = make(None), make(first)
    assert len(others) == 2 and others[-1].first + others[-1].count == len(whole)
    assert torch.equal(begin, whole[: first.count])
    assert len(make(others[0])) == others[0].count


@pytest.fixture
def split(batch: Callable[..., int], tmp_path: Path) -> Callable[..., int]:
    """split(*options): the batch of one long recording, in parts of two seconds."""
    write_speech(tmp_path / "long.wav", 3)
    return lambda *options: batch("portrait,audio\nportrait.png,long.wav\n", "--split", "2", *options)


def test_a_split_job_becomes_one_video_with_its_sound(split: Callable[..., int], tmp_path: Path) -> None:
    assert split() == 0
    video = tmp_path / "out" / "portrait-long.mp4"
    said = describe(video)
    assert [stream["type"] for stream in said["streams"]] == ["video", "audio"]
    assert len(said["metadata"]["letstalk"]["parts"]) == 3 and "AI-generated" in said["metadata"]["comment"]
    assert len(read_frames(video)) == 195 and said["seconds"] == pytest.approx(7.8, abs=0.1)
    assert (rows(tmp_path / "out")[video.name]["state"], rows(tmp_path / "out")[video.name]["frames"]) == (
        "done",
        "195",
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["batch.csv", video.name]


def test_a_killed_split_goes_on_with_the_parts_that_are_done(
    split: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, made = generate.make, []

    def make(args: Any, load: Any) -> Any:
        if len(made) == 1:
            made.append("killed")
            raise Killed
        made.append(Path(args.output).name)
        return own(args, load)

    monkeypatch.setattr(generate, "make", make)
    with pytest.raises(Killed):
        split("--quiet")
    assert split("--quiet") == 0
    assert made == ["0000.mp4", "killed", "0001.mp4", "0002.mp4"]
    with (tmp_path / "out" / "batch.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done"]
    left = tmp_path / "out" / "portrait-long.mp4.parts"  # by a kill in the last moment
    left.mkdir()
    (left / "0000.mp4").touch()
    assert split("--quiet") == 0
    assert not left.exists() and len(made) == 4


def test_what_a_split_cannot_make_is_refused_by_name(
    split: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split("--as-authors") == 2
    refused(capsys, "line 2", "as_authors", "--split")
    (tmp_path / "out" / "portrait-long.mp4.parts").mkdir(parents=True)
    (tmp_path / "out" / "portrait-long.mp4.parts" / "thesis.txt").write_text("years of work")
    assert split() == 2
    refused(capsys, "portrait-long.mp4.parts", "holds other files")


def test_a_part_that_fails_is_named_once(
    split: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "portrait.png").unlink()
    assert split("--quiet") == 2
    assert capsys.readouterr().err.count("failed: ") == 1
    row = rows(tmp_path / "out")["portrait-long.mp4"]
    assert row["state"] == "failed" and "part 1: " in row["error"] and "portrait.png" in row["error"]


@pytest.mark.slow
def test_a_seam_is_no_larger_than_between_clips() -> None:
    """The bundled model: the frame step over a seam beside the steps between the clips of the single run."""
    sound = load_waveform(DEMO_FOLDER / "speech" / "long_talk.mp3").flatten()[:112_000]  # 7 s
    picture = load_portrait(min((DEMO_FOLDER / "portraits").iterdir()))
    model = TalkingPortrait(load_bundle(None))
    scene = Scene.find(picture, (256, 256))
    parts = find_parts(sound, 25.0, 3.0)
    assert len(parts) == 2

    def make(part: Part | None) -> Tensor:
        sink = KeptFrames()
        model.generate(scene.portrait, sound, sink, part=part)
        return sink.video.float()

    whole, pieces = make(None), [make(part) for part in parts]
    steps = [float((whole[k] - whole[k - 1]).abs().mean()) for k in range(16, len(whole), 16)]
    seams = [float((b[0] - a[-1]).abs().mean()) for a, b in zip(pieces[:-1], pieces[1:], strict=True)]
    mean = sum(steps) / len(steps)
    print(f"seams {seams}; between clips {mean:.2f} ({min(steps):.2f} to {max(steps):.2f})")
    assert max(seams) <= max(steps) and sum(seams) / len(seams) <= mean
