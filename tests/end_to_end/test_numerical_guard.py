"""NaN, infinity and overflow put into every stage of a run: cured in float32, or an error that names the stage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.passes import STAGES, spoil
from letstalk_core.errors import NumericalError
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.talking_portrait import GenerateSettings, TalkingPortrait
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.networks.load import ModelBundle, load_bundle
from letstalk_core.sampling.clip import Clip

from .command import end_at, spoiled_sampler

SETTINGS = GenerateSettings(steps=2, seed=3)
PORTRAIT = torch.arange(32 * 32 * 3).remainder(253).to(torch.uint8).view(32, 32, 3)
SPEECH = 0.3 * torch.sin(torch.arange(9600) / 20)  # 0.6 s: four clips
HOW = ("nan", "inf", "-inf", "overflow")
NAN = float("nan")
LAST = 14  # frame


def generate(bundle: ModelBundle, **options: Any) -> KeptFrames:
    sink = KeptFrames()
    TalkingPortrait(bundle, **options).generate(PORTRAIT, SPEECH, sink, SETTINGS)
    return sink


@pytest.fixture(scope="module")
def clean(tiny_bundle: Path) -> list[Tensor]:
    """Frames, clip by clip, of a run that nothing disturbs."""
    return generate(load_bundle(tiny_bundle)).frames


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_stays_bad_is_named_and_nothing_of_it_is_written(
    tiny_bundle: Path, clean: list[Tensor], stage: str, how: str
) -> None:
    bundle = load_bundle(tiny_bundle)
    layer, first, message = STAGES[stage]
    spoil(layer(bundle), first, how, only_half=False)
    sink = KeptFrames()
    with pytest.raises(NumericalError, match=message.format(last=LAST) + r".*float32 with plain attention, too; "):
        TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, sink, SETTINGS)
    assert sink.state == "aborted" and len(sink.frames) < len(clean)
    assert all(torch.equal(a, b) for a, b in zip(sink.frames, clean, strict=False))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["half precision", "an accident"])
@pytest.mark.parametrize("stage", STAGES)
def test_what_float32_cures_is_done_again_once_and_leaves_no_trace(
    tiny_bundle: Path, clean: list[Tensor], stage: str, dtype: torch.dtype, how: str, caplog: Any
) -> None:
    """Half precision overflows again and again, an accident happens once."""
    bundle, half = load_bundle(tiny_bundle, dtype=dtype), dtype == torch.bfloat16
    layer, first, message = STAGES[stage]
    spoil(layer(bundle), first, how, only_half=half, **({} if half else {"count": 1}))
    with caplog.at_level(logging.WARNING):
        sink = generate(bundle)
    assert sink.state == "closed" and sum(map(len, sink.frames)) == LAST + 1
    again = [line for line in caplog.messages if "again in float32 with plain attention" in line]
    assert again[0].startswith(message.format(last=LAST).partition(":")[0]) and len(again) == len(set(again))
    assert bundle.dtype == dtype  # the model itself stays as it is
    if not half:
        assert len(again) == 1
        far = (torch.cat(sink.frames).int() - torch.cat(clean).int()).abs().max()
        assert far <= 1  # plain attention adds in another order


def test_bad_latents_of_a_sampler_are_sampled_again_or_named(tiny_bundle: Path, clean: list[Tensor]) -> None:
    """The last step may overflow behind the solver's own check."""
    bundle = load_bundle(tiny_bundle)
    once, twice = (spoiled_sampler(bundle, lambda call, _, bad=bad: call in bad) for bad in ({2}, {2, 3}))
    found = torch.cat(generate(bundle, make_sampler=once).frames)
    assert (found.int() - torch.cat(clean).int()).abs().max() <= 1  # plain attention adds in another order
    with pytest.raises(NumericalError, match=r"sampling of clip 2: gave NaN or infinity"):
        generate(bundle, make_sampler=twice)


def test_bad_latents_of_an_earlier_run_are_made_again(
    tiny_bundle: Path, clean: list[Tensor], tmp_path: Path
) -> None:
    bundle, work = load_bundle(tiny_bundle), WorkFolder(tmp_path / "work")

    stop = end_at(2, KeyboardInterrupt())
    TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, KeptFrames(), SETTINGS, progress=stop, work=work)
    latents = work.load(Clip(1, 4, 4))
    assert latents is not None
    work.save(Clip(1, 4, 4), latents * NAN)
    sink = KeptFrames()
    summary = TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, sink, SETTINGS, work=work)
    assert torch.equal(torch.cat(sink.frames), torch.cat(clean)) and summary.resumed_clips == 1
