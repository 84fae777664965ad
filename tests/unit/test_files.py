"""Temporary files that belong to one run, links that are not followed, and locks with one holder at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from letstalk_core.errors import OutputError
from letstalk_core.files import FileLock, atomic_path, new_temporary, remove_leftovers_of

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from letstalk_core.files import FileLock
lock = FileLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""
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


def test_a_second_object_waits_for_nobody_and_gets_it_after_the_first(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire() and first.acquire() and first.held
    assert not second.acquire() and not second.held
    first.release()
    assert second.acquire() and not first.acquire()
    second.release(delete=True)
    assert not (tmp_path / "lock").exists() and first.acquire()
    first.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    other = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None and other.stdout is not None
    with other.stdin, other.stdout:
        assert other.stdout.readline().strip() == "True"
        lock = FileLock(tmp_path / "lock")
        assert not lock.acquire() and lock.holder() == str(other.pid)
        other.kill()
        other.wait()
        assert lock.acquire()
        lock.release()


def test_a_deleted_lock_file_protects_nobody_else(tmp_path: Path) -> None:
    """Whoever opened the file before it was deleted must not think that it holds the new one."""
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    (tmp_path / "lock").unlink()
    assert second.acquire()
    first.release()
    assert not FileLock(tmp_path / "lock").acquire()
    second.release()
