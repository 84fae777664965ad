"""`letstalk batch`: tables of jobs, what becomes of them, and going on after a kill."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from letstalk_core.cli import run_generate as generate
from letstalk_core.cli.__main__ import main
from letstalk_core.cli.jobs import read_jobs

from .command import at_clip, stop_after
from .media import read_frames

Wav = Callable[..., Path]
FAST = ["--steps", "1", "--device", "cpu", "--no-crop", "--threads", "1"]  # the tests' pictures have no faces


class Killed(BaseException):
    """Ends a run as a kill does: nothing of it is caught."""


@pytest.fixture
def batch(tmp_path: Path, tiny_bundle: Path, portrait_png: Path, make_wav: Wav) -> Callable[..., int]:
    """batch(table, *options): runs it on a portrait.png and one.wav, two.wav beside the table."""
    make_wav(0.4, "one.wav")
    make_wav(1.0, "two.wav")

    def run(table: str, *options: str, name: str = "jobs.csv") -> int:
        (tmp_path / name).write_text(table)
        arguments = [str(tmp_path / name), "-o", str(tmp_path / "out"), "--model", str(tiny_bundle)]
        return main(["batch", *arguments, *FAST, *options])

    return run


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """The table that a batch leaves, by names of videos."""
    with (folder / "batch.csv").open(newline="") as file:
        return {Path(row["output"]).name: row for row in csv.DictReader(file)}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and all(word in error for word in words), error


TWO = "portrait,audio,seed\nportrait.png,one.wav,\nportrait.png,two.wav,7\n"
ONE, SECOND = "portrait-one.mp4", "portrait-two.mp4"


def test_every_line_becomes_the_video_that_generate_makes(
    batch: Callable[..., int], tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    def load(args: argparse.Namespace) -> Any:
        loaded.append(args.model)
        return own(args)

    own = generate.load_models
    monkeypatch.setattr(generate, "load_models", load)
    assert batch(TWO) == 0
    assert len(loaded) == 1
    table = rows(tmp_path / "out")
    assert {name: (row["state"], row["frames"]) for name, row in table.items()} == {
        ONE: ("done", "10"),
        SECOND: ("done", "25"),
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["batch.csv", ONE, SECOND]
    alone = tmp_path / "alone.mp4"
    arguments = [str(tmp_path / "portrait.png"), str(tmp_path / "two.wav"), "-o", str(alone), "--seed", "7"]
    assert main(["generate", *arguments, "--model", str(tiny_bundle), *FAST]) == 0
    assert np.array_equal(read_frames(tmp_path / "out" / SECOND), read_frames(alone))


def test_a_line_says_more_than_the_command_and_json_as_much_as_csv(
    batch: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"portrait": "portrait.png", "audio": str(tmp_path / "one.wav"), "fps": 10, "output": "a/b.mp4"}
    table = (
        json.dumps({**job, "no-crop": False, "crop_face": True}) + "\n\n" + json.dumps({**job, "output": "c.mp4"})
    )
    assert batch(table, "--fps", "5", "--size", "16x24", "--quiet", "--json", name="jobs.jsonl") == 2
    printed = capsys.readouterr()
    assert "line 1" in printed.err and "face" in printed.err  # found none, as the command would have let it
    first, second = json.loads(printed.out)
    assert (first["state"], second["state"], second["frames"]) == ("failed", "done", 4)
    assert read_frames(tmp_path / "out" / "c.mp4").shape == (4, 24, 16, 3)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("portrait,audio,sead\np,a,1", ["line 2", "unknown column 'sead'", "seed"]),
        ("portrait,audio,retake\np,a,1-2", ["unknown column 'retake'"]),
        ("portrait,audio,seed,seed\np,a,1,2", ["column 'seed' twice"]),
        ("portrait,seed\np,1", ["line 2", "has no audio"]),
        ("portrait,audio\np,a,b", ["line 2", "more values"]),
        ("portrait,audio,steps\np,a,1\np,b,few", ["line 3", "--steps", "few"]),
        ("portrait,audio,no_carry\np,a,perhaps", ["line 2", "no_carry='perhaps'", "true or false"]),
        ("portrait,audio\np,a\np,a", ["p-a.mp4", "output of", "line 2", "line 3 too"]),
        ("portrait,audio,output\np,a,v.mp4\np,b,./x/../v.mp4", ["line 2", "line 3 too"]),
        ("portrait,audio,output\np,a,v.mp4\nout/v.mp4,b,w.mp4", ["portrait of", "line 3"]),
        ("portrait,audio,output\np,a,batch.csv", ["the table of the batch"]),
        ("portrait,audio,output\np,a,../jobs.csv", ["the file of jobs"]),
        ("portrait,audio", ["holds no job"]),
        ("", ["holds no job"]),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_before_the_first_job(
    batch: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, words: list[str]
) -> None:
    assert batch(table) == 2
    refused(capsys, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [('{"portrait": ', ["line 1", "is no JSON"]), ("[1]", ["must be an object"]),
     ('{"portrait": ["p"], "audio": "a"}', ["portrait must be text"]),
     ('{"portrait": "p", "audio": "a", "reference": [1]}', ["reference must be text"])],
)  # fmt: skip
def test_lines_of_json_that_cannot_be_right_are_refused(
    batch: Callable[..., int], capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    assert batch(line, name="jobs.jsonl") == 2
    refused(capsys, *words)


def test_references_are_one_file_or_a_list_beside_the_table(tmp_path: Path) -> None:
    table = tmp_path / "jobs.jsonl"
    job = {"portrait": "p.png", "audio": "a.wav"}
    lines = [
        {**job, "reference": given, "output": f"{i}.mp4"} for i, given in enumerate((["x.png", "y.png"], "x.png"))
    ]
    table.write_text("\n".join(map(json.dumps, [*lines, job])))
    for name in ("x.png", "y.png"):
        (tmp_path / name).write_bytes(name.encode())
    first, second, none = read_jobs(table, tmp_path / "out", argparse.Namespace())
    assert first.args.reference == [str(tmp_path / "x.png"), str(tmp_path / "y.png")]
    assert second.args.reference == [str(tmp_path / "x.png")] and none.args.reference is None
    before = first.digest()
    (tmp_path / "y.png").write_bytes(b"another picture of the person")
    assert before != first.digest() != second.digest()


def test_a_job_that_fails_stops_no_other_and_the_table_says_why(
    batch: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch("portrait,audio\nnobody.png,one.wav\nportrait.png,one.wav\n", "--quiet") == 2
    assert "line 2" in capsys.readouterr().err
    table = rows(tmp_path / "out")
    failed = table["nobody-one.mp4"]
    assert (failed["state"], failed["tries"]) == ("failed", "1")  # no second try makes a file appear
    assert "nobody.png" in failed["error"]
    assert table[ONE]["state"] == "done"


def test_what_no_input_is_to_blame_for_is_tried_again(
    batch: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, left = generate.make, [RuntimeError("a cosmic ray"), RuntimeError("another"), RuntimeError("a third")]

    def make(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return own(*arguments)

    monkeypatch.setattr(generate, "make", make)
    assert batch(TWO) == 2
    table = rows(tmp_path / "out")
    assert (table[ONE]["state"], table[ONE]["tries"]) == ("failed", "2")
    assert "a cosmic ray" not in table[ONE]["error"] and "another" in table[ONE]["error"]
    assert (table[SECOND]["state"], table[SECOND]["tries"]) == ("done", "2")


def _kill() -> None:
    raise Killed


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_what_is_killed_or_stopped_goes_on(
    batch: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    assert batch(TWO) == 0
    whole = read_frames(tmp_path / "out" / SECOND)
    (tmp_path / "out").rename(tmp_path / "before")
    with monkeypatch.context() as patch:
        if how == "killed":
            at_clip(4, _kill, patch)  # the first job has three
            with pytest.raises(Killed):
                batch(TWO)
        else:
            stop_after(4, patch)
            assert batch(TWO) == 130
    assert rows(tmp_path / "out")[SECOND]["state"] == ("running" if how == "killed" else "stopped")
    finished = (tmp_path / "out" / ONE).stat()
    resumed: list[int] = []
    own = generate.make

    def make(*arguments: Any) -> Any:
        summary = own(*arguments)
        resumed.append(summary.resumed_clips)
        return summary

    monkeypatch.setattr(generate, "make", make)
    assert batch(TWO) == 0
    assert resumed == [4]  # one job, and its finished clips were not made again
    assert (tmp_path / "out" / ONE).stat().st_mtime_ns == finished.st_mtime_ns
    assert np.array_equal(read_frames(tmp_path / "out" / SECOND), whole)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["batch.csv", ONE, SECOND]


def test_what_was_killed_in_its_last_moment_is_done(batch: Callable[..., int], tmp_path: Path) -> None:
    table = "portrait,audio\nportrait.png,one.wav\n"
    assert batch(table) == 0
    notes = tmp_path / "out" / "batch.csv"
    notes.write_text(notes.read_text().replace(",done,", ",running,"))
    made = (tmp_path / "out" / ONE).stat().st_mtime_ns
    assert batch(table) == 0
    assert (tmp_path / "out" / ONE).stat().st_mtime_ns == made
    assert rows(tmp_path / "out")[ONE]["state"] == "done"


def test_videos_of_other_jobs_and_strangers_are_replaced_only_when_asked(
    batch: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = "portrait,audio,seed\nportrait.png,one.wav,{}\n"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ONE).write_text("precious")
    assert batch(table.format(1)) == 2
    refused(capsys, ONE, "line 2", "--overwrite")
    assert (tmp_path / "out" / ONE).read_text() == "precious"
    assert batch(table.format(1), "--overwrite", "--quiet") == 0
    first = (tmp_path / "out" / ONE).stat().st_mtime_ns
    assert batch(table.format(1), "--overwrite", "--quiet") == 0  # done is done
    assert (tmp_path / "out" / ONE).stat().st_mtime_ns == first
    assert batch(table.format(2)) == 2
    refused(capsys, ONE, "--overwrite")
    with (tmp_path / "one.wav").open("r+b") as file:  # another recording under the same name
        file.seek(100)
        file.write(b"\x11\x22")
    assert batch(table.format(1)) == 2
    refused(capsys, ONE, "--overwrite")


def test_two_batches_do_not_share_a_folder(
    batch: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    at_clip(4, lambda: codes.append(batch(TWO)), monkeypatch)
    assert batch(TWO, "--quiet") == 0
    assert codes == [2]
    refused(capsys, "in use by process", str(os.getpid()))


def test_without_ray_several_workers_say_what_to_install(
    batch: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert batch(TWO, "--workers", "2", "--quiet") == 2
    refused(capsys, "pip install 'letstalk-portrait[ray]'")
