"""RMSNorm over channels, and modulation."""

from __future__ import annotations

import pytest
import torch

from letstalk_core.networks.nn.norms import RMSNorm2d


def test_every_position_is_divided_by_its_root_mean_square_then_weighted_and_shifted() -> None:
    torch.manual_seed(0)
    norm = RMSNorm2d(6, eps=0.1)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 5)
    position = x[1, :, 2, 4]
    expected = position / (position.pow(2).mean() + 0.1).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x)[1, :, 2, 4], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_half_precision_values_do_not_overflow(dtype: torch.dtype) -> None:
    x = torch.full((1, 4, 2, 2), 30_000.0, dtype=dtype)  # its square is beyond float16
    y = RMSNorm2d(4, dtype=dtype)(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, torch.ones_like(x))
