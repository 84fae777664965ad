from __future__ import annotations

import pytest
import torch

from letstalk_core.errors import ConfigError
from letstalk_core.networks.configs import AudioProjectionConfig
from letstalk_core.networks.projection import AudioProjection

CONFIG = AudioProjectionConfig(window=3, layers=2, encoder_dim=6, hidden_size=8, tokens=4, token_dim=10)


@pytest.fixture
def projection() -> AudioProjection:
    torch.manual_seed(0)
    projection = AudioProjection(CONFIG)
    projection.init_weights()
    return projection


def test_windows_become_normed_tokens(projection: AudioProjection) -> None:
    tokens = projection(torch.randn(2, 7, 3, 2, 6))
    assert tokens.shape == (2, 7, 4, 10)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 7, 4), atol=1e-5, rtol=0)


def test_each_frame_depends_on_its_own_window_alone(projection: AudioProjection) -> None:
    windows = torch.randn(1, 5, 3, 2, 6)
    before = projection(windows)
    windows[:, 2] += 1
    changed = (projection(windows) - before).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert changed.tolist() == [False, False, True, False, False]


def test_every_parameter_gets_a_gradient(projection: AudioProjection) -> None:
    (projection(torch.randn(2, 3, 3, 2, 6)) * torch.randn(2, 3, 4, 10)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in projection.parameters())


def test_windows_of_another_encoder_are_refused(projection: AudioProjection) -> None:
    with pytest.raises(ConfigError, match=r"\[1, 5, 3, 3, 6\], need \(b, f, 3, 2, 6\)"):
        projection(torch.randn(1, 5, 3, 3, 6))
