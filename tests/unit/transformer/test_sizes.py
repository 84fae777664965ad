"""Sizes that the paper's authors have made public."""

from __future__ import annotations

import dataclasses

import pytest

from letstalk_core.networks.presets import AUDIO_PROJECTION, DIT
from letstalk_core.networks.projection import AudioProjection
from letstalk_core.networks.transformer.dit import LetsTalkDiT


@pytest.mark.parametrize(("preset", "millions"), [("S", 59.55), ("B", 222.62), ("L", 773.88), ("XL", 1135.18)])
def test_denoiser_has_the_published_number_of_parameters(preset: str, millions: float) -> None:
    config = dataclasses.replace(DIT[preset], learned_variance=True, prediction="epsilon")
    dit = LetsTalkDiT(config, device="meta")
    tables = (16 * 16 + 18) * config.hidden_size  # the authors' fixed position tables, which ours computes
    total = sum(p.numel() for p in dit.parameters()) + tables
    assert round(total / 1e6, 2) == millions


def test_audio_projection_has_the_published_number_of_parameters() -> None:
    projection = AudioProjection(AUDIO_PROJECTION["base"], device="meta")
    assert round(sum(p.numel() for p in projection.parameters()) / 1e6, 1) == 36.5
