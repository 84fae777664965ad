"""Temporary files that belong to one run, and links that are not followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from letstalk_core.errors import OutputError
from letstalk_core.files import FileLock, atomic_path, new_temporary, remove_leftovers_of

LONG = "ф" * 100 + ".png"  # 204 bytes: more than a name with a process number and a token leaves


def test_two_writers_of_one_name_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_that_fits_can_be_written_however_long(tmp_path: Path) -> None:
    with atomic_path(tmp_path / LONG) as temporary:
        temporary.write_text("x")
    assert (tmp_path / LONG).read_text() == "x"


def test_leftovers_are_those_of_this_very_name(tmp_path: Path) -> None:
    mine, other = new_temporary(tmp_path / LONG), new_temporary(tmp_path / f"{LONG[:-5]}.png")
    signed, user = new_temporary(mine.with_name(".v.mp4.1-00000000.tmp.mp4")), tmp_path / ".v.mp4.mine.tmp.mp4"
    user.touch()
    remove_leftovers_of(tmp_path / LONG)
    remove_leftovers_of(tmp_path / "v.mp4")
    assert not mine.exists() and not signed.exists() and other.exists() and user.exists()


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path: Path, link: object) -> None:
    (tmp_path / "precious").write_text("precious")
    link(tmp_path / "precious", tmp_path / "lock")  # type: ignore[operator]
    with pytest.raises(OSError, match="link"):
        FileLock(tmp_path / "lock").acquire()
    assert (tmp_path / "precious").read_text() == "precious"


def test_writing_over_a_link_replaces_the_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a.txt").symlink_to(tmp_path / "precious")
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "a.txt").is_symlink()


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "file" / "a.txt"):
        pass
