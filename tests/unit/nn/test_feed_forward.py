"""The gated convolutional feed-forward against the public implementation."""

from __future__ import annotations

import pytest
import torch

from letstalk_core.networks.nn.feed_forward import GLUMBConv


@pytest.mark.parametrize("norm", [False, True])
@torch.no_grad()
def test_it_agrees_with_diffusers(norm: bool) -> None:
    sana = pytest.importorskip("diffusers.models.transformers.sana_transformer")
    torch.manual_seed(0)
    reference = sana.GLUMBConv(8, 8, 2.5, norm_type="rms_norm" if norm else None, residual_connection=False)
    ours = GLUMBConv(8, 20, norm=norm)
    ours.load_state_dict(reference.state_dict())
    x = torch.randn(2, 8, 5, 3)
    torch.testing.assert_close(ours(x), reference(x), rtol=1e-5, atol=1e-6)


def test_only_the_last_convolution_has_no_bias() -> None:
    names = [name for name, _ in GLUMBConv(4, 8).named_parameters()]
    assert names == [
        "conv_inverted.weight",
        "conv_inverted.bias",
        "conv_depth.weight",
        "conv_depth.bias",
        "conv_point.weight",
    ]
