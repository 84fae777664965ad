"""One holder at a time, and none that is dead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from letstalk_core.files import FileLock

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from letstalk_core.files import FileLock
lock = FileLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


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
