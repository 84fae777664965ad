from __future__ import annotations

import pytest
import torch

from letstalk_core.networks.transformer.conditions import Conditions

NAMES = ("portrait", "audio", "memory")


@pytest.fixture
def conditions() -> Conditions:
    return Conditions(torch.ones(1, 4, 2, 2), torch.ones(1, 5, 3, 12), torch.ones(1, 2, 4, 2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_a_condition_left_out_is_zeros_and_the_others_stay(conditions: Conditions, name: str) -> None:
    without = getattr(conditions, f"without_{name}")()
    for other in NAMES:
        before, after = getattr(conditions, other), getattr(without, other)
        assert torch.equal(after, torch.zeros_like(before) if other == name else before)


def test_concatenation_keeps_the_order_of_the_batch(conditions: Conditions) -> None:
    both = Conditions.concatenate([conditions, conditions.without_audio()])
    assert both.portrait.shape == (2, 4, 2, 2)
    assert both.memory.shape == (2, 2, 4, 2, 2)
    assert [a.sum().item() for a in both.audio] == [180, 0]


def test_conversion_reaches_every_tensor(conditions: Conditions) -> None:
    converted = conditions.to(dtype=torch.float64)
    assert {getattr(converted, name).dtype for name in NAMES} == {torch.float64}
