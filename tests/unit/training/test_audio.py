"""The audio stage, on invented speech: espeak-ng is not needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from letstalk_core.networks.checkpoint import read_header
from letstalk_research.commands.train import build_stage
from letstalk_research.data.synthetic.speech_library import SpeechLibrary
from letstalk_research.training import speech as module
from letstalk_research.training.audio_augment import disturb
from letstalk_research.training.config import Recipe
from letstalk_research.training.loop import train
from letstalk_research.training.plots import read_csv

from .conftest import hum

OPTIONS = ("loop.steps=3", "objective.utterances=4", "objective.crop_seconds=[0.4, 0.6]", "loop.validate_every=3")


@pytest.mark.slow
def test_the_audio_stage_trains_validates_and_exports(make_recipe: Callable[..., Recipe]) -> None:
    result = train(build_stage(make_recipe("audio", *OPTIONS, "loop.sample_every=3")))
    assert [p.name for p in result.exported] == ["audio_encoder.safetensors", "audio_head.safetensors"]
    assert list(read_header(result.exported[0]).parts) == ["audio_encoder"]
    assert {"mae", "corr_jaw", "corr_energy"} <= set(read_csv(result.run / "validation.csv")[0])
    assert (result.run / "samples" / "step-0000003.png").exists()


def test_utterances_are_spoken_once_and_kept(make_recipe: Callable[..., Recipe], hums: list[int]) -> None:
    first = build_stage(make_recipe("audio", *OPTIONS))
    count = len(hums)
    again = build_stage(make_recipe("audio", *OPTIONS))
    assert count == len(hums) == 4 + 2
    batches = [stage.plan_batch(5)() for stage in (first, again)]
    assert all(torch.equal(batches[0][k], batches[1][k]) for k in batches[0])
    assert batches[0]["audio"].shape[1] == 640 * batches[0]["curves"].shape[1]


@pytest.mark.slow
def test_recordings_join_the_utterances_and_have_their_own_validation(
    make_recipe: Callable[..., Recipe], data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, tuple[str, ...]]] = []

    def prepared(folder: Path, *, recordings: tuple[str, ...], engines: tuple[str, ...]) -> SpeechLibrary:
        asked.append((folder, recordings))
        library = SpeechLibrary(tmp_path / "library")
        for split in ("train", "held_out"):
            spoken = hum(np.random.default_rng(1), split, 2.0)
            library.add(split, replace(spoken, voice="Ann"), kind="recording", split=split)
        return library

    monkeypatch.setattr(module, "prepared", prepared)
    options = (*OPTIONS, 'objective.recordings=["books"]', "objective.speech_share=1.0")
    result = train(build_stage(make_recipe("audio", *options)))
    assert asked == [(data_folder / "speech", ("books",))]
    assert {"corr_jaw", "library_corr_jaw"} <= set(read_csv(result.run / "validation.csv")[0])
    names = sorted(p.name for p in (data_folder / "utterances").iterdir())
    assert [n.split("-")[0] for n in names] == ["train"] * 4 + ["val"] * 4  # two of each kind
    digest = SpeechLibrary(tmp_path / "library").digest
    assert sum(digest in name for name in names) == 6  # none is taken for espeak-ng's


def test_processes_share_the_speaking(hums: list[int], tmp_path: Path) -> None:
    cache = module.UtteranceCache(tmp_path)
    shares = [cache.load("train", 5, 0.4, first=first, stride=2) for first in (0, 1)]
    assert [len(share) for share in shares] == [3, 2] and len(hums) == 5
    whole = cache.load("train", 5, 0.4)
    assert len(hums) == 5  # all of them had been spoken
    parts = [shares[i % 2][i // 2] for i in range(5)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole, parts, strict=True))


def test_a_damaged_cache_file_is_spoken_again(
    make_recipe: Callable[..., Recipe], hums: list[int], data_folder: Path
) -> None:
    build_stage(make_recipe("audio", *OPTIONS))
    next((data_folder / "utterances").glob("train-*")).write_bytes(b"broken")
    build_stage(make_recipe("audio", *OPTIONS))
    assert len(hums) == 7


def test_disturbing_changes_the_sound_but_not_its_timing() -> None:
    clicks = torch.zeros(4, 16_000)
    clicks[:, 6000:6200] = torch.sin(torch.arange(200) / 3)
    out = disturb(clicks, torch.Generator().manual_seed(1), 1.0)
    assert out.shape == clicks.shape
    assert torch.isfinite(out).all()
    assert not torch.allclose(out, clicks)
    before, after = out[:, 5000:5900].square().mean(1), out[:, 6000:6200].square().mean(1)
    assert (after > 3 * before).all()
    assert torch.equal(disturb(clicks, torch.Generator().manual_seed(1), 0.0), clicks)
    assert torch.equal(disturb(clicks, torch.Generator().manual_seed(1), 1.0), out)


def test_silent_crops_teach_rest(make_recipe: Callable[..., Recipe]) -> None:
    stage = build_stage(make_recipe("audio", *OPTIONS, "objective.silent_share=0.5", "data.batch_size=16"))
    batch = stage.plan_batch(1)()
    silent = batch["audio"].abs().amax(1) < 1e-3  # noise on silence is faint
    assert 2 <= int(silent.sum()) <= 14
    assert batch["curves"][silent].abs().max() == 0 and batch["curves"][~silent].abs().amax((1, 2)).min() > 0
