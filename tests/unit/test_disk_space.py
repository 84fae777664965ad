"""How much is missing, and whether that was the reason."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from letstalk_core.errors import OutputError
from letstalk_core.generate.disk_space import bytes_needed, is_full, readable, with_shortage


def test_a_full_disk_is_found_behind_other_errors() -> None:
    def fail(first: Exception) -> OutputError:
        try:
            try:
                raise first
            except Exception:
                raise OutputError("cannot be written") from None
        except OutputError as error:
            return error

    assert is_full(fail(OSError(errno.ENOSPC, "No space left on device")))
    assert is_full(fail(RuntimeError("IoError: No space left on device (os error 28)")))
    assert not is_full(fail(OSError(errno.EACCES, "Permission denied")))


def test_what_is_needed_follows_what_was_measured() -> None:
    known = {"fps": 25.0, "pixels": 10_000, "segment_frames": 48, "keep": False}
    # 100 bytes a frame: 500 left in segments and the file so far, 1000 joined; latents of 144; sound twice
    need = bytes_needed(frames=1000, held=500, video=50_000, latents=10.0, **known)  # type: ignore[arg-type]
    assert need == 100 * (2 * 500 + 1000) + 10 * 144 + 2 * 24_000 * 40
    more = bytes_needed(frames=1000, held=500, video=50_000, latents=10.0, **{**known, "keep": True})  # type: ignore[arg-type]
    assert more - need == 10 * (500 - 144)
    assert bytes_needed(frames=1000, held=0, video=0, latents=0.0, **known) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "text"), [(5, "5 B"), (3_400, "3.4 kB"), (250e6, "250 MB"), (5e12, "5000 GB")])
def test_numbers_are_readable(count: float, text: str) -> None:
    assert readable(count) == text


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    error = OutputError("x")
    numbers = {"frames": 9, "held": 0, "fps": 25.0, "pixels": 9, "segment_frames": 4, "clip_frames": 4}
    assert with_shortage(error, tmp_path, keep=False, **numbers) is error  # type: ignore[arg-type]
