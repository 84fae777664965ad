"""Bad numbers put into every stage: found there, named, made again once in float32, and never in a picture."""

from __future__ import annotations

import logging
import re

import torch
from torch import Tensor

from benchmarks.passes import STAGES, spoil
from benchmarks.soak.harness import Outcome, Soak, scenario
from letstalk_core.errors import NumericalError
from letstalk_core.generate.talking_portrait import GenerateSettings, TalkingPortrait
from letstalk_core.networks.load import ModelBundle, load_bundle

__all__ = ["numbers"]

FRAMES, CLIP = 60, 16
HOW = ("nan", "inf", "-inf", "overflow")
SETTINGS = GenerateSettings(steps=2, seed=3, decode_batch=CLIP)  # one call of the decoder a clip
SPEECH = 0.3 * torch.sin(torch.arange(FRAMES * 640) / 20)


class _Frames(logging.Handler):
    """Keeps frames, and what the guard logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.frames: list[Tensor] = []
        self.state = "open"
        self.logged: list[str] = []

    def write(self, frames: Tensor) -> None:
        self.frames.append(frames)

    def close(self, partial: bool = False) -> None:  # the handler's, too
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"

    def emit(self, record: logging.LogRecord) -> None:
        self.logged.append(record.getMessage())


@scenario("bad numbers", repeat=False)
def numbers(soak: Soak) -> Outcome:
    """NaN, infinity and overflow in every stage in turn: for good, once, and in half precision only."""
    outcome = Outcome()
    exact, half = load_bundle(soak.bundle), load_bundle(soak.bundle, dtype=torch.bfloat16)
    clean = _generate(exact)
    for stage, (layer, first, message) in STAGES.items():
        named = message.format(last=FRAMES - 1)
        for how in HOW:
            handle = spoil(layer(exact), first, how, only_half=False)
            try:
                sink = _generate(exact, re.compile(named + ".*in float32 with plain attention, too"))
            finally:
                handle.remove()
            what = f"{how} in {stage}, for good"
            outcome.check(sink.state == "aborted", f"{what}: the sink is {sink.state}")
            same = all(torch.equal(a, b) for a, b in zip(sink.frames, clean.frames, strict=False))
            outcome.check(
                same and len(sink.frames) < len(clean.frames), f"{what}: frames of a bad clip are written"
            )
            for bundle, only_half, count in ((exact, False, 1), (half, True, 10**9)):
                handle = spoil(layer(bundle), first, how, only_half, count)
                try:
                    sink = _generate(bundle)
                finally:
                    handle.remove()
                what = f"{how} in {stage}, {'in half precision' if only_half else 'once'}"
                _check_cured(outcome, sink, clean, named, what, only_half)
            outcome.count("bad numbers", 3)
            outcome.count("made again in float32", 2)
    return outcome


def _check_cured(outcome: Outcome, sink: _Frames, clean: _Frames, named: str, what: str, only_half: bool) -> None:
    outcome.check(sink.state == "closed", f"{what}: the sink is {sink.state}, {sink.logged}")
    outcome.check(sum(map(len, sink.frames)) == FRAMES, f"{what}: frames are missing")
    again = [line for line in sink.logged if "again in float32" in line]
    outcome.check(bool(again) and bool(re.match(named.partition(":")[0], again[0])), f"{what}: it says {again}")
    outcome.check(len(again) == len(set(again)), f"{what}: a stage was made again twice: {again}")
    if not only_half and sink.state == "closed":
        outcome.check(len(again) == 1, f"{what}: more was made again: {again}")
        far = int((torch.cat(sink.frames).int() - torch.cat(clean.frames).int()).abs().max())
        outcome.check(far <= 1, f"{what}: pixels differ by {far}")  # plain attention adds in another order


def _generate(bundle: ModelBundle, refusal: re.Pattern[str] | None = None) -> _Frames:
    """What came of a run. Bad numbers that stay are an error with this text, or pass on."""
    sink = _Frames()
    portrait = torch.arange(64 * 64 * 3).remainder(253).to(torch.uint8).view(64, 64, 3)
    guard = logging.getLogger("letstalk_core.networks.numerical_guard")
    propagate, guard.propagate = guard.propagate, False
    guard.addHandler(sink)
    try:
        TalkingPortrait(bundle).generate(portrait, SPEECH, sink, SETTINGS)
    except NumericalError as error:
        if refusal is None or not refusal.match(str(error)):
            sink.state = f"stopped with {str(error)!r}"
    finally:
        guard.removeHandler(sink)
        guard.propagate = propagate
    return sink
