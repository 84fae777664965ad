from __future__ import annotations

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


def test_what_the_other_side_does_not_know_is_named(make_dit: Make) -> None:
    dit = make_dit()
    theirs = official(dit)
    with pytest.raises(CheckpointError, match="no preset is 32 wide.*num_heads"):
        convert.dit_config_from_official(theirs)
    theirs["pos_embed"] = theirs["pos_embed"].flip(-1)
    with pytest.raises(CheckpointError, match="pos_embed .* is not the fixed sine-cosine table"):
        convert.dit_from_official(theirs, dit.config)
    with pytest.raises(CheckpointError, match=r"guide_attention\.portrait"):
        official(make_dit(portrait_fusion="direct"))


def test_every_projection_key_makes_the_round_trip() -> None:
    state = dict(AudioProjection(SMALL).state_dict())
    theirs = convert.projection_to_official(state)
    assert sorted(theirs) == sorted(
        f"{n}.{k}" for n in ("proj1", "proj2", "proj3", "norm") for k in ("weight", "bias")
    )
    assert same(convert.projection_from_official(theirs), state)
    assert convert.projection_config_from_official(theirs, layers=2) == SMALL


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


@pytest.mark.parametrize("content", [{"weights": {}}, {"ema": {"a": torch.zeros(1)}}])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="other.pt: .* is not a LetsTalk model") as error:
        convert.load_official(tmp_path / "other.pt")
    assert "\n" not in str(error.value)
