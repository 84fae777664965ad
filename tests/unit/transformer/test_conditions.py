from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from letstalk_core.networks.transformer.conditions import Conditions

NAMES = ("portrait", "audio", "memory")


@pytest.fixture
def conditions() -> Conditions:
    return Conditions(torch.ones(1, 4, 2, 2), torch.ones(1, 5, 3, 12), torch.ones(1, 2, 4, 2, 2))


def test_concatenation_keeps_the_order_of_the_batch(conditions: Conditions) -> None:
    both = Conditions.concatenate([conditions, replace(conditions, audio=torch.zeros_like(conditions.audio))])
    assert both.portrait.shape == (2, 4, 2, 2)
    assert both.memory.shape == (2, 2, 4, 2, 2)
    assert [a.sum().item() for a in both.audio] == [180, 0]


def test_conversion_reaches_every_tensor(conditions: Conditions) -> None:
    converted = conditions.to(dtype=torch.float64)
    assert {getattr(converted, name).dtype for name in NAMES} == {torch.float64}
