"""The manifest: appended to by some, read by others at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from letstalk_core.errors import MediaError
from letstalk_research.data.manifest import MANIFEST, ClipRecord, Manifest, append_records


def record(name: str, **changes: object) -> ClipRecord:
    return ClipRecord(**{"id": name, "clip": f"clips/{name}.safetensors", "frames": 24, **changes})  # type: ignore[arg-type]


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    records = [record("b", split="val"), record("ä", latents="latents/ä.safetensors", identity="x")]
    append_records(tmp_path, records)
    assert list(Manifest(tmp_path)) == records


def test_refresh_finds_what_was_added_since(tmp_path: Path) -> None:
    append_records(tmp_path, [record("a")])
    manifest = Manifest(tmp_path)
    append_records(tmp_path, [record("b")])
    assert (manifest.refresh(), len(manifest)) == (2, 2)


def test_refresh_stops_at_a_limit_and_goes_on_from_there(tmp_path: Path) -> None:
    append_records(tmp_path, [record(n) for n in "abcd"])
    manifest = Manifest(tmp_path / "none", missing_ok=True)
    manifest.path = tmp_path / MANIFEST
    assert manifest.refresh(2) == 2
    assert [r.id for r in manifest] == ["a", "b"]
    assert manifest.refresh() == 4


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    append_records(tmp_path, [record("a")])
    with (tmp_path / MANIFEST).open("a") as file:
        file.write('{"id": "b", "clip":')
    manifest = Manifest(tmp_path)
    assert len(manifest) == 1
    with (tmp_path / MANIFEST).open("a") as file:
        file.write(' "b.safetensors", "frames": 3}\n')
    manifest.refresh()
    assert "b" in manifest


def test_a_later_line_of_an_id_replaces_the_earlier_one(tmp_path: Path) -> None:
    append_records(tmp_path, [record("a"), record("b")])
    append_records(tmp_path, [record("a", latents="latents/a.safetensors")])
    manifest = Manifest(tmp_path)
    assert [r.id for r in manifest] == ["a", "b"]
    assert [r.id for r in manifest.select("train", with_latents=True)] == ["a"]


def test_clips_with_latents_come_in_the_order_in_which_they_got_them(tmp_path: Path) -> None:
    append_records(tmp_path, [record(n) for n in "abc"])
    live = Manifest(tmp_path)
    for name in "cab":
        append_records(tmp_path, [record(name, latents=f"latents/{name}.safetensors")])
        live.refresh()
    append_records(tmp_path, [record("c", latents="latents/c.safetensors", identity="again")])
    live.refresh()
    assert [r.id for r in live.select("train", with_latents=True)] == ["c", "a", "b"]
    assert Manifest(tmp_path).select("train", with_latents=True) == live.select("train", with_latents=True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ["line 1", "JSON"]),
        ("[]", ["line 1", "object"]),
        ('{"id": "a", "clip": "a"}', ["frames"]),
        ('{"id": "a", "clip": "a", "frames": 0}', ["frames"]),
        ('{"id": "a", "clip": "/etc/x", "frames": 1}', ["/etc/x"]),
        ('{"id": "a", "clip": "../x", "frames": 1}', ["../x"]),
        ('{"id": "a", "clip": "x", "frames": 1, "split": "test"}', ["split", "test"]),
        ('{"id": "../a", "clip": "x", "frames": 1}', ["id", "../a"]),
        ('{"id": "..", "clip": "x", "frames": 1}', ["id", "'..'"]),
        ('{"id": "a/b", "clip": "x", "frames": 1}', ["id", "a/b"]),
        ('{"id": "", "clip": "x", "frames": 1}', ["id", "''"]),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: list[str]) -> None:
    (tmp_path / MANIFEST).write_text(line + "\n")
    with pytest.raises(MediaError) as error:
        Manifest(tmp_path)
    assert [w for w in words if w not in str(error.value)] == []


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="letstalk prepare"):
        Manifest(tmp_path)
