"""The work folder takes and deletes nothing but its own files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from letstalk_core.errors import OutputError
from letstalk_core.long_video import Clip
from letstalk_core.resume import WorkFolder


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds other files and no run\.json"):
        WorkFolder(tmp_path).begin({"seed": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    WorkFolder(tmp_path).begin({"seed": 1})
    WorkFolder(tmp_path).begin({"seed": 1})
    assert (tmp_path / "run.json").is_file()


def test_only_its_own_files_are_deleted(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "work")
    work.begin({"seed": 1})
    work.save(Clip(0, 0, 4), torch.zeros(1, 4, 2, 2, 2))
    (work.folder / ".clip-000001.safetensors.7.tmp.safetensors").write_bytes(b"of a killed run")
    (work.folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="work: cannot be deleted"):
        work.remove()
    assert [p.name for p in work.folder.iterdir()] == ["notes.txt"]
    (work.folder / "notes.txt").unlink()
    work.remove()
    assert not work.folder.exists()
