"""The autoencoder as a module; tests/golden compares what it computes with diffusers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from letstalk_core.errors import ConfigError
from letstalk_core.networks.autoencoder.blocks import MultiScaleLinearAttention, UpBlock
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.nn.layers import Layers
from letstalk_core.networks.presets import AUTOENCODER

from .test_convert import small


@torch.no_grad()
def test_channels_last_and_contiguous_memory_give_the_same_result() -> None:
    torch.manual_seed(0)
    model = AutoencoderDC(small("lite-f32c32-sana-1.1")).eval()
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    expected = model(images)
    found = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["demo", "f32c32-sana-1.1", "f32c32-mix-1.0"])
def test_fresh_weights_give_finite_outputs_and_every_residual_branch_can_start_to_learn(name: str) -> None:
    torch.manual_seed(0)
    model = AutoencoderDC(small(name))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))  # as uninitialised memory may be
    model.init_weights()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    output = model(images)
    assert 0.01 < output.std() < 10
    (output - images).square().mean().backward()
    idle = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    inside = ("conv1.", "conv2.", "to_", "conv_inverted", "conv_depth", "conv_point")
    assert [k for k in idle if not any(part in k for part in inside)] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_widths_that_the_shortcut_cannot_join_are_refused() -> None:
    config = dataclasses.replace(AUTOENCODER["demo"], encoder_block_out_channels=(16, 24, 48, 96, 192, 320))
    with pytest.raises(ConfigError, match="320 must divide 768"):
        AutoencoderDC(config, device="meta")


def test_every_layer_with_a_matrix_comes_from_operations() -> None:
    class Operations:
        class Linear(torch.nn.Linear):
            pass

        class Conv2d(torch.nn.Conv2d):
            pass

    model = AutoencoderDC(small("f32c32-sana-1.1"), operations=Operations, device="meta", dtype=torch.bfloat16)
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    assert all(isinstance(m, (Operations.Linear, Operations.Conv2d)) for m in layers)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.device.type for p in model.parameters()} == {"meta"}


@torch.no_grad()
def test_attention_over_many_positions_stays_finite_under_half_precision_autocast() -> None:
    layer = MultiScaleLinearAttention(32)
    for projection in (layer.to_q, layer.to_k, layer.to_v):
        projection.weight.copy_(torch.eye(32))
    x = torch.full((1, 32, 64, 64), 8.0)  # the sum over keys is 262144, beyond float16
    with torch.autocast("cpu", torch.float16):
        assert layer(x).isfinite().all()


class Plain:
    """Layers as functions, which nothing can be derived from: every convolution in its plain form."""

    Linear = torch.nn.Linear

    @staticmethod
    def Conv2d(*arguments: object, **keywords: object) -> torch.nn.Conv2d:
        return torch.nn.Conv2d(*arguments, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["interpolate", "pixel_shuffle"])
@pytest.mark.parametrize("widths", [(8, 8), (8, 4), (16, 4), (8, 16), (12, 9)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 4)], ids=str)
def test_doubling_by_phases_is_as_defined(kind: str, widths: tuple[int, int], size: tuple[int, int]) -> None:
    """With gradients, and with layers that are no classes, the definition is computed."""
    block, plain = UpBlock(*widths, kind), UpBlock(*widths, kind, layers=Layers(Plain))
    plain.load_state_dict(block.state_dict())
    x = torch.randn(2, widths[0], *size)
    expected = block(x)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(plain(x), expected, rtol=1e-5, atol=1e-6)
        kept = x.clone()
        block(x)
        assert torch.equal(x, kept)


@torch.no_grad()
def test_weights_patched_in_place_act_at_once() -> None:
    """As a host does that applies a LoRA: nothing derived from the weights is kept."""
    block, x = UpBlock(8, 4, "interpolate"), torch.randn(1, 8, 3, 3)
    before = block(x)
    block.conv.weight.mul_(2)
    block.conv.bias.mul_(2)
    block.shortcut = False
    doubled = block(x)
    block.conv.weight.div_(2)
    block.conv.bias.div_(2)
    torch.testing.assert_close(doubled, 2 * block(x))
    block.shortcut = True
    assert torch.equal(block(x), before)


def test_attention_at_two_scales_equals_that_of_plain_grouped_convolutions() -> None:
    layer = MultiScaleLinearAttention(64, 32, (3,))
    plain = MultiScaleLinearAttention(64, 32, (3,), layers=Layers(Plain))
    plain.load_state_dict(layer.state_dict())
    for size in ((2, 3), (9, 8)):
        x = torch.randn(2, 64, *size)
        torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-5)
