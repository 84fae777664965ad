from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from letstalk_core.networks.transformer.dit import LetsTalkDiT

Make = Callable[..., LetsTalkDiT]
Inputs = Callable[..., dict[str, Tensor]]
FUSIONS = ("direct", "siamese", "symbiotic")
PAIRS = list(itertools.product(FUSIONS, FUSIONS))


@pytest.mark.parametrize(("portrait", "audio"), PAIRS)
def test_each_pair_trains_every_parameter(make_dit: Make, make_inputs: Inputs, portrait: str, audio: str) -> None:
    dit = make_dit(portrait_fusion=portrait, audio_fusion=audio)
    out = dit(**make_inputs(grid=(3, 4)))
    assert out.shape == (2, 5, 4, 3, 4)
    out.square().sum().backward()
    unused = [n for n, p in dit.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert unused == []
    torch.optim.AdamW(dit.parameters(), lr=1e-4).step()
    assert dit(**make_inputs()).isfinite().all()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("name", ["portrait", "audio"])
def test_each_scheme_lets_the_condition_change_the_output(
    make_dit: Make, make_inputs: Inputs, name: str, fusion: str
) -> None:
    dit, inputs = make_dit(**{f"{name}_fusion": fusion}), make_inputs()
    before = dit(**inputs)
    inputs[name] = make_inputs(seed=1)[name]
    assert (dit(**inputs) - before).abs().max() > 1e-3


@pytest.mark.parametrize(("portrait", "audio"), PAIRS)
def test_each_pair_starts_at_zero(make_dit: Make, make_inputs: Inputs, portrait: str, audio: str) -> None:
    dit = make_dit(portrait_fusion=portrait, audio_fusion=audio)
    dit.init_weights()
    with torch.no_grad():
        assert dit(**make_inputs()).abs().max() == 0


def test_schemes_differ_in_size_as_designed(make_dit: Make) -> None:
    sizes = {pair: sum(p.numel() for p in make_dit(portrait_fusion=pair[0], audio_fusion=pair[1]).parameters())
             for pair in PAIRS}  # fmt: skip
    for audio in FUSIONS:
        assert sizes["symbiotic", audio] < sizes["direct", audio] < sizes["siamese", audio]
