"""NaN, infinity and overflow put into every stage of a run: cured in float32, or an error that names the stage."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from letstalk_core.errors import NumericalError
from letstalk_core.models import ModelBundle, load_bundle
from letstalk_core.pipeline import GenerateSettings, TalkingPortrait
from letstalk_core.resume import WorkFolder

SETTINGS = GenerateSettings(steps=2, seed=3)
PORTRAIT = torch.arange(32 * 32 * 3).remainder(253).to(torch.uint8).view(32, 32, 3)
SPEECH = 0.3 * torch.sin(torch.arange(9600) / 20)  # 0.6 s: four clips
CLIPS = 4
NAN, INF = float("nan"), float("inf")

# stage -> the layer to spoil, its first bad call in a run of two steps, and what the message has to say
STAGES: dict[str, tuple[Callable[[ModelBundle], nn.Module], int, str]] = {
    "audio features": (lambda b: b.audio_encoder.encoder.layers[0], 0, r"audio features of frames 0 to 14"),
    "audio projection": (lambda b: b.audio_projection.norm, 1, r"audio projection of clip 2"),
    "portrait encoding": (lambda b: b.autoencoder.encoder, 0, r"encoding of the portrait"),
    "first step": (lambda b: b.dit.final, 0, r"sampling of clip 1: .*clip 1, step 1 of 2"),
    "later step": (lambda b: b.dit.final, 3, r"sampling of clip 2: .*clip 2, step 2 of 2"),
    "decoding": (lambda b: b.autoencoder.decoder, 2, r"decoding of clip 3"),
}


class Frames:
    """Keeps frames."""

    def __init__(self) -> None:
        self.frames: list[Tensor] = []
        self.state = "open"

    def write(self, frames: Tensor) -> None:
        self.frames.append(frames)

    def close(self, partial: bool = False) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"


def spoil(layer: nn.Module, first: int, how: str, only_half: bool, count: int = 10**9) -> list[int]:
    """From call `first` on, `count` results of a layer hold a bad number; of half precision only, if so wished."""
    calls = [0]

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        result = output[0] if isinstance(output, tuple) else output
        calls[0] += 1
        exact = next(module.parameters()).dtype == torch.float32
        if not first < calls[0] <= first + count or (only_half and exact):
            return None
        result = result.clone()
        if how == "overflow":
            result = result.sign() * 1e38 * 1e38
        else:
            result[(-1,) * result.ndim] = {"nan": NAN, "inf": INF, "-inf": -INF}[how]
        return (result, *output[1:]) if isinstance(output, tuple) else result

    layer.register_forward_hook(hook)
    return calls


def generate(bundle: ModelBundle, **options: Any) -> Frames:
    sink = Frames()
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
    sink = Frames()
    with pytest.raises(NumericalError, match=message + r".*float32 with plain attention, too; "):
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
    assert message.partition(":")[0] in caplog.text and "again in float32 with plain attention" in caplog.text
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
            own = TalkingPortrait(bundle)._solver_sampler(settings, on_step)
            calls = [0]

            def sample(noise: Tensor, conditions: Any, *, clip_index: int) -> Tensor:
                calls[0] += 1
                result = own(noise, conditions, clip_index=clip_index)
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
    from letstalk_core.long_video import Clip

    bundle, work = load_bundle(tiny_bundle), WorkFolder(tmp_path / "work")
    clean = torch.cat(generate(bundle).frames)

    def stop(now: Any) -> None:
        if now.clip == 2:
            raise KeyboardInterrupt

    TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, Frames(), SETTINGS, progress=stop, work=work)
    latents = work.load(Clip(1, 4, 4))
    assert latents is not None
    work.save(Clip(1, 4, 4), latents * NAN)
    sink = Frames()
    summary = TalkingPortrait(bundle).generate(PORTRAIT, SPEECH, sink, SETTINGS, work=work)
    assert torch.equal(torch.cat(sink.frames), clean) and summary.resumed_clips == 1
