from pathlib import Path

import numpy as np
import pytest
import torch

from letstalk_core.errors import ConfigError
from letstalk_research.data.clips import open_clip
from letstalk_research.data.manifest import Manifest
from letstalk_research.data.synthetic import dataset
from letstalk_research.data.synthetic.dataset import draw_clip, synthesize
from letstalk_research.data.synthetic.motion import MOTION
from letstalk_research.data.synthetic.speech import Utterance, synthesise

pytestmark = pytest.mark.usefixtures("espeak")


def test_a_folder_of_clips_can_be_read_back(tmp_path: Path) -> None:
    records = list(synthesize(tmp_path, clips=2, frames=6, seed=3))
    assert [r.id for r in records] == ["train-3-000000", "train-3-000001"]
    clip = open_clip(tmp_path, next(iter(Manifest(tmp_path))))
    assert clip.frames().shape == (6, 256, 256, 3)
    assert clip.regions().shape == (6, 3, 4)
    poses = clip.portrait_motion()
    assert poses is not None and clip.portraits().shape[0] == len(poses) == 2
    assert poses.shape[1] == clip.motion().shape[1] == len(clip.motion_names)
    assert len(clip.audio()) >= 640 * (clip.lead_frames + 6)


def test_a_stopped_job_goes_on_and_processes_share_the_work(tmp_path: Path) -> None:
    list(synthesize(tmp_path / "one", clips=3, frames=4))
    list(synthesize(tmp_path / "two", clips=3, frames=4, first=1, stride=2))
    assert [r.id for r in synthesize(tmp_path / "two", clips=3, frames=4)] == ["train-0-000000", "train-0-000002"]
    assert list(synthesize(tmp_path / "two", clips=3, frames=4)) == []
    one, two = (
        {r.id: open_clip(tmp_path / name, r).portraits() for r in Manifest(tmp_path / name)}
        for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)  # the same people, whoever draws them


def test_people_and_portraits_do_not_depend_on_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """espeak-ng repeats itself only to about a millisecond, which may change how many frames an utterance has."""
    sound = [synthesise(text, "en") for text in ("hello", "good evening everybody")]
    monkeypatch.setattr(dataset, "random_utterance", lambda *_, **__: sound.pop())
    one, two = draw_clip(0, "train", 0, frames=4), draw_clip(0, "train", 0, frames=4)
    assert one.identity == two.identity
    assert (one.portrait_motion == two.portrait_motion).all()


def test_some_people_say_nothing_and_keep_their_mouth_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = synthesise("good evening everybody, how are you", "en")
    monkeypatch.setattr(dataset, "random_utterance", lambda *_, **__: spoken)
    clips = [draw_clip(0, "train", i, frames=24) for i in range(120)]
    silent = [c for c in clips if not c.utterance.waveform.any()]
    assert 2 <= len(silent) <= 14  # one in twenty; the draw is the same each time
    assert all(len(c.utterance.waveform) >= (c.first_frame + 24) * 640 for c in silent)
    assert all((c.motion[:, :4] == 0).all() for c in silent)
    assert any(c.motion[:, MOTION.index("blink")].max() > 0.9 for c in silent)


def test_other_speakers_can_speak_the_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken, asked = synthesise("good evening everybody, how are you", "en"), []

    def speak(rng: np.random.Generator, split: str, min_seconds: float) -> Utterance:
        asked.append((split, min_seconds))
        return spoken

    clips = [draw_clip(0, split, 1, frames=24, speak=speak) for split in ("train", "val")]
    assert [c.utterance for c in clips] == [spoken, spoken]
    assert asked == [("train", 24 / 25 + 0.4), ("held_out", 24 / 25 + 0.4)]
    monkeypatch.setattr(dataset, "random_utterance", None)  # espeak-ng is not asked
    assert len(list(synthesize(tmp_path, clips=1, frames=4, speak=speak))) == 1


def test_people_of_the_splits_differ() -> None:
    assert draw_clip(0, "train", 0, frames=4).identity != draw_clip(0, "val", 0, frames=4).identity
    with pytest.raises(ConfigError, match="split='test'"):
        draw_clip(0, "test", 0, frames=4)
