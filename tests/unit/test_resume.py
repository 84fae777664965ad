"""The work folder takes and deletes nothing but its own files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from letstalk_core.errors import ConfigError, OutputError
from letstalk_core.generate.disk_space import bytes_needed, is_full, readable, with_shortage
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.sampling.long_video import Clip, plan_clips
from letstalk_core.sampling.memory_bank import MemoryBank

CLIP = Clip(0, 0, 4)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds other files and no run\.json"):
        WorkFolder(tmp_path).begin({"seed": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_taken_and_held_against_others(tmp_path: Path) -> None:
    first, second = WorkFolder(tmp_path), WorkFolder(tmp_path)
    first.begin({"seed": 1})
    with pytest.raises(OutputError, match=f"in use by process {os.getpid()};"):
        second.begin({"seed": 1})
    first.release()
    second.begin({"seed": 1})
    assert (tmp_path / "run.json").is_file()
    second.release()


def test_other_settings_are_named_or_start_anew(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "work", also={"encoder": "a"})
    work.begin({"seed": 1, "steps": 2})
    work.save(CLIP, torch.zeros(1, 4, 2, 2, 2))
    work.release()
    other = {"seed": 2, "steps": 2}
    with pytest.raises(ConfigError, match="differs in encoder, seed;.*--restart"):
        WorkFolder(work.folder, also={"encoder": "b"}).begin(other)
    assert work.load(CLIP) is not None
    anew = WorkFolder(work.folder, restart=True)
    anew.begin(other)
    assert anew.load(CLIP) is None
    anew.release()


@pytest.mark.parametrize("content", ["{", "[1]", '{"seed": 1}', '{"format": 99, "run": {}}'])
def test_a_folder_of_another_format_is_refused_or_deleted_when_asked(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match="run.json"):
        WorkFolder(tmp_path).begin({"seed": 1})
    work = WorkFolder(tmp_path, restart=True)
    work.begin({"seed": 1})
    work.release()


def test_one_changed_bit_makes_a_clip_unfinished(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    work.save(CLIP, torch.ones(1, 4, 2, 2, 2))
    path = work.clip_path(CLIP)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    assert work.load(CLIP) is None


def test_latents_go_when_a_memory_after_them_is_kept(tmp_path: Path) -> None:
    plan = plan_clips(24, 4)
    work, bank = WorkFolder(tmp_path / "work"), MemoryBank(2, 1)
    bank.reset(torch.zeros(1, 2, 2, 2))
    for clip in plan[:4]:
        latents = torch.full((1, 4, 2, 2, 2), float(clip.index))
        work.save(clip, latents)
        bank.write(latents)
        if clip.index in (1, 3):
            work.prune(plan[: clip.index + 1])
            assert work.load(clip) is not None  # no memory is kept yet
            work.snapshot(clip.index + 1, bank)
    work.prune(plan[:2])
    assert [work.load(clip) is not None for clip in plan[:4]] == [False, False, True, True]
    work.prune(plan[:4])
    found = MemoryBank(2, 1)
    assert work.restore(found, 3) == 0 and found.is_empty
    assert work.restore(found, 5) == 4 and torch.equal(found.read(), bank.read())
    kept = WorkFolder(tmp_path / "kept", keep=True)
    kept.save(plan[0], latents)
    kept.snapshot(1, bank)
    kept.prune(plan[:1])
    assert kept.load(plan[0]) is not None


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


@pytest.mark.parametrize("begun", [True, False])
def test_what_a_kill_leaves_goes_with_the_folder(tmp_path: Path, begun: bool) -> None:
    """In a run, or in its removal. safetensors writes to a hidden file of its own, and renames that."""
    work = WorkFolder(tmp_path / "work")
    work.begin({"seed": 1})
    work.release()
    work.save(CLIP, torch.ones(1, 4, 2, 2, 2))
    if not begun:
        (work.folder / "run.json").unlink()
        (work.folder / "video-000000.mp4").write_bytes(b"x")
    for name in (".tmpwGIXLl", ".clip-000000.safetensors.12.tmp.safetensors"):
        (work.folder / name).write_bytes(b"half")
    again = WorkFolder(work.folder)
    again.begin({"seed": 1})
    kept = ["clip-000000.safetensors"] if begun else []
    assert sorted(p.name for p in work.folder.iterdir()) == [*kept, "lock", "run.json"]
    (work.folder / ".tmpAt6Ghl").write_bytes(b"half")  # and one of the last moment
    again.remove()
    assert not work.folder.exists()


# how much disk space is missing, and whether that was the reason


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
