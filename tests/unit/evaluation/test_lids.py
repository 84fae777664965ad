"""Blinks read from pixels, by what a puppet of the same person looks like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from letstalk_core.media.puppet.topology import EYES
from letstalk_research.evaluation.lids import LidReader
from letstalk_research.evaluation.metrics import blinks

TIMES = 40
LIDS = np.interp(np.arange(TIMES) % 20, [6, 8, 10, 12], [0, 1, 1, 0])  # two blinks
POINTS = np.full((TIMES, 478, 2), np.nan)  # but for the corners of the eyes
for eye, (left, right) in zip(EYES, ((10, 22), (54, 42)), strict=True):
    POINTS[:, list(eye.corners)] = [[left, 14], [right, 14]]


def frames(lids: np.ndarray, light: float = 0.0, noise: float = 0.0) -> Tensor:
    """Faces (t, 32, 64, 3) whose eyes are dark where they are open and as skin where a lid is."""
    picture = torch.full((len(lids), 32, 64, 3), 150.0 + light)
    for t, lid in enumerate(lids):
        top = 11 + round(6 * float(lid))
        for x in (10, 42):
            picture[t, top:17, x : x + 12] -= 110
    picture += noise * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return picture.round().clamp(0, 255).to(torch.uint8)


def test_a_puppet_is_read_as_it_moves_and_a_copy_in_other_light_alike() -> None:
    reader = LidReader(frames(LIDS), POINTS, LIDS)
    for copy in (frames(LIDS), frames(LIDS, light=20, noise=6)):
        read = reader(copy)
        assert np.corrcoef(read, LIDS)[0, 1] > 0.97 and abs(read - LIDS).max() < 0.25
        assert blinks(read) == blinks(LIDS) == 2


@pytest.mark.parametrize(("depth", "count"), [(0.0, 0), (0.3, 0), (0.8, 2)])
def test_half_a_blink_is_none(depth: float, count: int) -> None:
    assert blinks(LidReader(frames(LIDS), POINTS, LIDS)(frames(depth * LIDS))) == count


def test_eyes_that_smear_for_long_do_not_blink() -> None:
    smeared = frames(LIDS * 0)
    smeared[10:30, 11:17] = frames(LIDS)[8:28, 11:17].float().mean((1, 2), keepdim=True).to(torch.uint8)
    assert blinks(LidReader(frames(LIDS), POINTS, LIDS)(smeared)) == 0


def test_without_open_and_shut_eyes_nothing_is_known() -> None:
    still = np.zeros(TIMES)
    reader = LidReader(frames(still), POINTS, still)
    assert not reader.known and np.isnan(reader(frames(LIDS))).all()
