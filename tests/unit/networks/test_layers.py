"""What golden tests of whole networks do not reach: half precision, far positions, and the audio projection."""

from __future__ import annotations

import pytest
import torch

from letstalk_core.errors import ConfigError
from letstalk_core.networks.configs import AudioProjectionConfig
from letstalk_core.networks.nn.attention import LinearAttention
from letstalk_core.networks.nn.embeddings import axis_positions, space_table, time_positions
from letstalk_core.networks.nn.norms import RMSNorm2d
from letstalk_core.networks.projection import AudioProjection

HALVES = [torch.float16, torch.bfloat16]


def test_linear_attention_of_silent_keys_is_zero_before_the_output_projection() -> None:
    layer = LinearAttention(32)
    torch.nn.init.zeros_(layer.qkv.weight)
    torch.testing.assert_close(layer(torch.randn(1, 5, 32)), layer.out.bias.expand(1, 5, -1))


@pytest.mark.parametrize("dtype", HALVES)
def test_linear_attention_normalises_in_float32_under_half_precision(dtype: torch.dtype) -> None:
    layer = LinearAttention(32).to(dtype)
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.eye(32).repeat(3, 1) * 8)
        x = torch.full((1, 4096, 32), 8.0, dtype=dtype)  # the sum over keys is 262144, beyond float16
        assert layer(x).isfinite().all()


def test_linear_attention_in_bfloat16_is_as_exact_as_its_inputs() -> None:
    qkv = torch.randn(3, 2, 4, 5000, 32).bfloat16()
    layer = LinearAttention(128)
    with torch.no_grad():
        exact, found = layer.attend(qkv.float()), layer.attend(qkv)
    error = (found.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert found.dtype == torch.bfloat16 and error < 2**-7  # a few roundings to 8 bits


def test_linear_attention_stays_in_float32_under_autocast() -> None:
    qkv = torch.randn(3, 1, 2, 50, 16)
    expected = LinearAttention(32, 16).attend(qkv)
    with torch.autocast("cpu", torch.bfloat16):
        found = LinearAttention(32, 16).attend(qkv)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_large_half_precision_values_do_not_overflow_a_norm(dtype: torch.dtype) -> None:
    x = torch.full((1, 4, 2, 2), 30_000.0, dtype=dtype)  # its square is beyond float16
    y = RMSNorm2d(4, dtype=dtype)(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, torch.ones_like(x))


def test_positions_beyond_the_trained_range_are_pressed_into_it() -> None:
    assert axis_positions(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert axis_positions(5, 3).tolist() == [0, 0.5, 1, 1.5, 2]
    assert axis_positions(4, 0).tolist() == [0, 0, 0, 0]


def test_clip_starts_after_the_trained_memory_whatever_the_number_of_memory_frames() -> None:
    for memory, expected in ((3, [0, 1, 2]), (1, [2]), (0, []), (5, [0, 0.5, 1, 1.5, 2])):
        before, clip = time_positions(memory, 4, trained_memory=3, trained_frames=4)
        assert before.tolist() == expected
        assert clip.tolist() == [3, 4, 5, 6]


def test_tables_made_under_inference_mode_serve_training_too() -> None:
    table = ((7, 9), (7, 9), 20, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        space_table(*table)
    weight = torch.randn(63, 20, requires_grad=True)
    (weight * space_table(*table)).sum().backward()
    assert weight.grad is not None


# the audio projection

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
