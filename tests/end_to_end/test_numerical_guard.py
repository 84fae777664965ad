"""NaN, infinity and overflow put into every stage of a run: cured in float32, or an error that names the stage."""

from __future__ import annotations

import logging
from collections.abc import Callable
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
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.sampling.clip import Blend, Clip

SETTINGS = GenerateSettings(steps=2, seed=3)
PORTRAIT = torch.arange(32 * 32 * 3).remainder(253).to(torch.uint8).view(32, 32, 3)
SPEECH = 0.3 * torch.sin(torch.arange(9600) / 20)  # 0.6 s: four clips
CLIPS = 4
NAN = float("nan")
LAST = 14  # frame


def generate(bundle: ModelBundle, **options: Any) -> KeptFrames:
    sink = KeptFrames()
    TalkingPortrait(bundle, **options).generate(PORTRAIT, SPEECH, sink, SETTINGS)
    return sink


@pytest.mark.parametrize("how", ["nan", "inf", "-inf", "overflow"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_stays_bad_is_named_and_nothing_of_it_is_written(
    tiny_bundle: Path, stage: str, how: str
) -> None:
    bundle = load_bundle(tiny_bundle)
    layer, first, message = STAGES[stage]
    spoil(layer(bundle), first, how, only_half=False)
    sink = KeptFrames()
    with pytest.raises(NumericalError, match=message.format(last=LAST) + r".*float32 with plain attention, too; "):
        TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, sink, SETTINGS)
    assert sink.state == "aborted"
    clean = generate(load_bundle(tiny_bundle)).frames
    assert len(sink.frames) < len(clean)
    assert all(torch.equal(a, b) for a, b in zip(sink.frames, clean, strict=False))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_bad_in_half_precision_is_done_again_in_float32(
    tiny_bundle: Path, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = load_bundle(tiny_bundle, dtype=torch.bfloat16)
    layer, first, message = STAGES[stage]
    spoil(layer(bundle), first, "nan", only_half=True)
    with caplog.at_level(logging.WARNING):
        sink = generate(bundle)
    assert sink.state == "closed" and sum(map(len, sink.frames)) == 15
    assert (
        message.format(last=LAST).partition(":")[0] in caplog.text
        and "again in float32 with plain attention" in caplog.text
    )
    assert bundle.dtype == torch.bfloat16  # the model itself stays as it is


@pytest.mark.parametrize("stage", STAGES)
def test_an_accident_in_float32_is_repaired_without_a_trace(tiny_bundle: Path, stage: str) -> None:
    """The second try, with plain attention, gives what an undisturbed run does, but for the order of sums."""
    bundle = load_bundle(tiny_bundle)
    layer, first, _ = STAGES[stage]
    spoil(layer(bundle), first, "inf", only_half=False, count=1)
    found, clean = torch.cat(generate(bundle).frames), torch.cat(generate(load_bundle(tiny_bundle)).frames)
    assert (found.int() - clean.int()).abs().max() <= 1


def test_bad_latents_of_a_sampler_are_sampled_again_or_named(tiny_bundle: Path) -> None:
    """The last step may overflow behind the solver's own check."""

    def broken(bad: set[int]) -> Callable[..., Any]:
        def make(settings: Any, on_step: Any) -> Any:
            own = TalkingPortrait(bundle).solver_sampler(settings, on_step)
            calls = [0]

            def sample(noise: Tensor, conditions: Conditions, clip: Clip, blend: Blend | None = None) -> Tensor:
                calls[0] += 1
                result = own(noise, conditions, clip, blend)
                return result * NAN if calls[0] in bad else result

            return sample

        return make

    bundle = load_bundle(tiny_bundle)
    clean = torch.cat(generate(bundle).frames)
    found = torch.cat(generate(bundle, make_sampler=broken({2})).frames)
    assert (found.int() - clean.int()).abs().max() <= 1  # plain attention adds in another order
    with pytest.raises(NumericalError, match=r"sampling of clip 2: gave NaN or infinity"):
        generate(bundle, make_sampler=broken({2, 3}))


def test_bad_latents_of_an_earlier_run_are_made_again(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle, work = load_bundle(tiny_bundle), WorkFolder(tmp_path / "work")
    clean = torch.cat(generate(bundle).frames)

    def stop(now: Any) -> None:
        if now.clip == 2:
            raise KeyboardInterrupt

    TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, KeptFrames(), SETTINGS, progress=stop, work=work)
    latents = work.load(Clip(1, 4, 4))
    assert latents is not None
    work.save(Clip(1, 4, 4), latents * NAN)
    sink = KeptFrames()
    summary = TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, sink, SETTINGS, work=work)
    assert torch.equal(torch.cat(sink.frames), clean) and summary.resumed_clips == 1
