from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from letstalk_core.errors import CheckpointError
from letstalk_core.networks.configs import AudioProjectionConfig
from letstalk_core.networks.projection import AudioProjection
from letstalk_core.networks.transformer import convert
from letstalk_core.networks.transformer.dit import LetsTalkDiT

Make = Callable[..., LetsTalkDiT]
SMALL = AudioProjectionConfig(layers=2, encoder_dim=6, hidden_size=8, tokens=3, token_dim=12)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def official(dit: LetsTalkDiT) -> dict[str, Tensor]:
    return convert.dit_to_official(dit.state_dict(), dit.config)


def test_every_denoiser_key_makes_the_round_trip(make_dit: Make) -> None:
    dit = make_dit()
    theirs = official(dit)
    assert theirs["pos_embed"].shape == (1, 16, 32)
    assert theirs["long_temp_embed"].shape == (1, 7, 32)
    assert same(convert.dit_from_official(theirs, dit.config), dict(dit.state_dict()))


def test_every_projection_key_makes_the_round_trip() -> None:
    state = dict(AudioProjection(SMALL).state_dict())
    theirs = convert.projection_to_official(state)
    assert sorted(theirs) == sorted(
        f"{n}.{k}" for n in ("proj1", "proj2", "proj3", "norm") for k in ("weight", "bias")
    )
    assert same(convert.projection_from_official(theirs), state)
    assert convert.projection_config_from_official(theirs, layers=2) == SMALL


def test_config_follows_from_the_shapes(make_dit: Make) -> None:
    dit = make_dit(prediction="epsilon", learned_variance=True)
    assert convert.dit_config_from_official(official(dit), num_heads=2, linear_head_dim=16) == dit.config


def test_unknown_width_asks_for_the_number_of_heads(make_dit: Make) -> None:
    with pytest.raises(CheckpointError, match="no preset is 32 wide.*num_heads"):
        convert.dit_config_from_official(official(make_dit()))


@pytest.mark.parametrize(
    "name",
    ["x_embedder.proj.weight", "final_layer.linear.weight", "blocks.0.cross_attn.k_proj.weight", "pos_embed"],
)
def test_tensors_without_the_expected_dimensions_are_named(name: str, make_dit: Make) -> None:
    for tensor in (torch.zeros(()), torch.zeros(3), torch.zeros(0, 0, 0, 0)):
        with pytest.raises(CheckpointError, match=rf"{name} is \[.*dimensions"):
            convert.dit_config_from_official({**official(make_dit()), name: tensor}, num_heads=2)
    with pytest.raises(CheckpointError, match=r"proj1\.weight is \[3\], needs 2 dimensions"):
        theirs = convert.projection_to_official(AudioProjection(SMALL).state_dict())
        convert.projection_config_from_official({**theirs, "proj1.weight": torch.zeros(3)})


def test_foreign_names_are_refused_and_the_first_five_named() -> None:
    state = {f"layer.{i}.weight": torch.zeros(1) for i in range(7)}
    with pytest.raises(CheckpointError, match=r"7 names are foreign: layer\.0\.weight, .*layer\.4\.weight, …;"):
        convert.dit_from_official(state)


def test_other_fusion_has_no_official_form(make_dit: Make) -> None:
    dit = make_dit(portrait_fusion="direct")
    with pytest.raises(CheckpointError, match=r"guide_attention\.portrait"):
        official(dit)


def test_a_position_table_of_another_kind_is_refused(make_dit: Make) -> None:
    dit = make_dit()
    theirs = official(dit)
    theirs["pos_embed"] = theirs["pos_embed"].flip(-1)
    with pytest.raises(CheckpointError, match="pos_embed .* is not the fixed sine-cosine table"):
        convert.dit_from_official(theirs, dit.config)


def test_a_whole_checkpoint_file_is_read(make_dit: Make, tmp_path: Path) -> None:
    dit, projection = make_dit(prediction="epsilon"), AudioProjection(SMALL)
    theirs = official(dit)
    path = tmp_path / "official.pt"
    content = {
        "ema": {f"module.{k}": v for k, v in theirs.items()},
        "model": {k: v * 2 for k, v in theirs.items()},
        "audioproj": convert.projection_to_official(projection.state_dict()),
        "args": argparse.Namespace(lr=1e-4),
    }
    torch.save(content, path)
    found = convert.load_official(path, num_heads=2, linear_head_dim=16)
    assert found.dit_config == dit.config
    assert same(found.dit, dict(dit.state_dict()))
    assert found.projection is not None and same(found.projection, dict(projection.state_dict()))


class Harmful:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path, ("x",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ema": {"a": torch.zeros(1)}, "extra": Harmful()}, "holds more than plain tensors"),
        ({"weights": {}}, "is not a LetsTalk model"),
        ([1, 2], "holds a list, not named tensors"),
        ({"ema": {"a": torch.zeros(1)}}, "is not a LetsTalk model"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as error:
        convert.load_official(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all" * 9, b"PK\x03\x04 cut short"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged.pt: "):
        convert.load_official(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent.pt: no such file"):
        convert.load_official(tmp_path / "absent.pt")
