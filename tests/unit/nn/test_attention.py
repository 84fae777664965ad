from __future__ import annotations

import pytest
import torch
from torch import Tensor

from letstalk_core.networks.nn.attention import (
    CrossAttention,
    LinearAttention,
    SoftmaxAttention,
    TemporalAttention,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def quadratic(layer: LinearAttention, x: Tensor) -> Tensor:
    """The same attention through its (n x n) matrix, one head at a time."""
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    heads = []
    for i in range(0, x.shape[-1], layer.head_dim):
        part = slice(i, i + layer.head_dim)
        weights = q[..., part].relu() @ k[..., part].relu().transpose(1, 2)
        heads.append(weights @ v[..., part] / (weights.sum(-1, keepdim=True) + 1e-8))
    return layer.out(torch.cat(heads, dim=-1))


def test_linear_attention_equals_its_quadratic_form() -> None:
    layer, x = LinearAttention(64, 16), torch.randn(3, 21, 64)
    torch.testing.assert_close(layer(x), quadratic(layer, x), rtol=1e-5, atol=1e-5)


def test_linear_attention_answers_only_the_queries_asked_for() -> None:
    layer, x = LinearAttention(64), torch.randn(2, 10, 64)
    torch.testing.assert_close(layer(x, 4), layer(x)[:, :4])


def test_linear_attention_of_silent_keys_is_zero_before_the_output_projection() -> None:
    layer = LinearAttention(32)
    torch.nn.init.zeros_(layer.qkv.weight)
    torch.testing.assert_close(layer(torch.randn(1, 5, 32)), layer.out.bias.expand(1, 5, -1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_linear_attention_normalises_in_float32_under_half_precision(dtype: torch.dtype) -> None:
    layer = LinearAttention(32).to(dtype)
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.eye(32).repeat(3, 1) * 8)
        x = torch.full((1, 4096, 32), 8.0, dtype=dtype)  # the sum over keys is 262144, beyond float16
        assert layer(x).isfinite().all()


def test_linear_attention_in_bfloat16_is_as_exact_as_its_inputs() -> None:
    qkv = torch.randn(3, 2, 4, 5000, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    layer = LinearAttention(128)
    with torch.no_grad():
        exact, found = layer.attend(qkv.double().float()), layer.attend(qkv)
    error = (found.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert found.dtype == torch.bfloat16 and error < 2**-7  # a few roundings to 8 bits


def test_linear_attention_stays_in_float32_under_autocast() -> None:
    qkv = torch.randn(3, 1, 2, 50, 16)
    expected = LinearAttention(32, 16).attend(qkv)
    with torch.autocast("cpu", torch.bfloat16):
        found = LinearAttention(32, 16).attend(qkv)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_softmax_attention_equals_torch_multi_head_attention() -> None:
    layer, x = SoftmaxAttention(32, 8), torch.randn(2, 7, 32)
    reference = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": torch.zeros(96),
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    torch.testing.assert_close(layer(x), reference(x, x, x)[0], rtol=1e-4, atol=1e-5)


def test_temporal_attention_equals_torch_multi_head_attention_at_each_position() -> None:
    layer, x = TemporalAttention(32, 4), torch.randn(2, 7, 3, 32)
    reference = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    for position in range(3):
        one = x[:, :, position]
        torch.testing.assert_close(layer(x)[:, :, position], reference(one, one, one)[0], rtol=1e-4, atol=1e-5)


def test_cross_attention_ignores_the_order_of_the_condition_tokens() -> None:
    layer, x, context = CrossAttention(32, 4, 12), torch.randn(6, 9, 32), torch.randn(6, 5, 12)
    shuffled = context[:, torch.randperm(5)]
    torch.testing.assert_close(layer(x, layer.key_value(context)), layer(x, layer.key_value(shuffled)))


def test_cross_attention_shares_one_condition_among_the_frames_of_a_sample() -> None:
    layer, x, context = CrossAttention(32, 4, 12), torch.randn(2, 3, 9, 32), torch.randn(2, 5, 12)
    repeated = context[:, None].expand(-1, 3, -1, -1).flatten(0, 1)
    torch.testing.assert_close(layer(x, layer.key_value(context)), layer(x, layer.key_value(repeated)))
