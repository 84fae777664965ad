"""Heads of photo puppets that the face finder's second looks learn from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from letstalk_core.media.portrait.face_geometry import mouth_opening
from letstalk_core.networks.face_points import LOWER_INNER, UPPER_INNER
from letstalk_research.data.face_heads import VALIDATION, Heads, load_heads
from letstalk_research.data.face_puppets import make_puppet_heads

from .photo_faces import write_stills


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    make_puppet_heads(write_stills(folder / "stills"), folder, 36, seed=0)
    return folder


def test_points_lie_on_open_mouths(folder: Path) -> None:
    heads: Heads = load_heads(folder)
    opening = mouth_opening(heads.points)
    assert len(heads) == 36 and float(opening.min()) < 0.03 and float(opening.max()) > 0.3
    light = heads.pictures.float().mean(-1) / 255
    for i in opening.topk(5).indices.tolist():
        lips = heads.points[i][[LOWER_INNER[5], UPPER_INNER[5]], :2]
        x, y = lips.mean(0).long().tolist()
        below = int(2 * lips[0, 1] - y) + 4  # the lower lip or the chin
        assert light[i, y, x] < light[i, below, x]


def test_what_exists_is_kept_and_held_out_people_stay_apart(folder: Path) -> None:
    before = (folder / "heads-puppets.safetensors").read_bytes()
    make_puppet_heads(folder / "stills", folder, 36, seed=1)
    assert (folder / "heads-puppets.safetensors").read_bytes() == before
    held_out = load_heads(folder / VALIDATION)
    assert len(held_out) == 3 and not torch.equal(held_out.pictures[0], load_heads(folder).pictures[0])
