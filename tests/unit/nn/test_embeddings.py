from __future__ import annotations

import math

import torch

from letstalk_core.networks.nn.embeddings import (
    PatchEmbedding,
    axis_positions,
    sincos,
    space_table,
    time_positions,
    time_table,
    timestep_features,
)

CPU, F32 = torch.device("cpu"), torch.float32


def test_space_table_holds_the_column_first_and_sines_before_cosines() -> None:
    table = space_table((3, 5), (8, 8), 16, CPU, F32)
    row, column = 2, 4
    found = table[row * 5 + column]
    for i in range(4):
        omega = 10000 ** (-i / 4)
        needed = [math.sin(column * omega), math.cos(column * omega), math.sin(row * omega), math.cos(row * omega)]
        torch.testing.assert_close(found[[i, 4 + i, 8 + i, 12 + i]], torch.tensor(needed))


def test_positions_within_the_trained_range_are_integers() -> None:
    assert axis_positions(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert axis_positions(8, 8).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_positions_beyond_the_trained_range_are_pressed_into_it() -> None:
    assert axis_positions(5, 3).tolist() == [0, 0.5, 1, 1.5, 2]
    assert axis_positions(4, 0).tolist() == [0, 0, 0, 0]


def test_clip_starts_after_the_trained_memory_whatever_the_number_of_memory_frames() -> None:
    for memory, expected in ((3, [0, 1, 2]), (1, [2]), (0, []), (5, [0, 0.5, 1, 1.5, 2])):
        before, clip = time_positions(memory, 4, trained_memory=3, trained_frames=4)
        assert before.tolist() == expected
        assert clip.tolist() == [3, 4, 5, 6]


def test_time_table_is_one_run_of_positions_at_the_trained_length() -> None:
    before, clip = time_table(2, 16, (2, 16), 12, CPU, F32)
    torch.testing.assert_close(torch.cat([before, clip]), sincos(torch.arange(18), 12).float())


def test_tables_made_under_inference_mode_serve_training_too() -> None:
    with torch.inference_mode():
        space_table((7, 9), (7, 9), 20, CPU, F32)
    weight = torch.randn(63, 20, requires_grad=True)
    (weight * space_table((7, 9), (7, 9), 20, CPU, F32)).sum().backward()
    assert weight.grad is not None


def test_timestep_features_put_cosines_first() -> None:
    features = timestep_features(torch.tensor([0.0, 250.5]))
    assert features.shape == (2, 256)
    assert features[0].tolist() == [1.0] * 128 + [0.0] * 128
    torch.testing.assert_close(features[1, [0, 128]], torch.tensor([math.cos(250.5), math.sin(250.5)]))


def test_patches_run_row_by_row() -> None:
    layer = PatchEmbedding(1, 1, 2)
    torch.nn.init.constant_(layer.proj.weight, 0.25)
    torch.nn.init.zeros_(layer.proj.bias)
    image = torch.arange(6.0).view(1, 1, 2, 3).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert layer(image)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
