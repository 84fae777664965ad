"""The harness of the benchmarks: ratios, the table, and when a table may be written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu, harness, tables
from benchmarks.denoiser import _exponents
from benchmarks.harness import Options, Row


def test_every_round_runs_all_and_begins_with_another() -> None:
    calls: list[str] = []
    functions = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times = harness.paired(functions, Options(rounds=3))
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {len(t) for t in times.values()} == {3}
    calls.clear()
    assert len(harness.paired({"a": functions["a"]}, Options(rounds=5), long=True)["a"]) == len(calls) == 2


def test_a_ratio_is_the_median_of_the_rounds_with_its_range() -> None:
    assert harness.ratio([2.0, 3.0, 8.0], [1.0, 1.0, 2.0]) == (3.0, "3.00x (2.00 to 4.00)")


def test_cost_that_grows_with_tokens_has_exponent_one() -> None:
    tokens = [64, 256, 1024]
    assert _exponents(tokens, [[n * 1e-6, n**2 * 1e-6] for n in tokens]) == pytest.approx([1.0, 2.0])


ROW = Row(what="a", against="b", result="2x", reach=">= 3x", reached=False, note="n", limit="why", headline=True)


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The long and the short page, and no results yet."""
    paths = (tmp_path / "long.md", tmp_path / "short.md")
    for path in paths:
        path.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    monkeypatch.setattr(tables, "PAGES", dict(zip(paths, (False, True), strict=True)))
    monkeypatch.setattr(tables.load, "__defaults__", (tmp_path / "results.json",))
    monkeypatch.setattr(tables.save, "__defaults__", (tmp_path / "results.json",))
    return paths


def test_a_part_replaces_its_own_rows_alone(pages: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tables.save({}, "guidance", "that machine", [replace(ROW, what="kept")])
    tables.save(tables.load(), "flatness", "that machine", [replace(ROW, what="replaced")])
    monkeypatch.setattr(command, "machine", lambda options, cores: ("this machine", False))
    monkeypatch.setitem(command.PARTS, "flatness", lambda options: [replace(ROW, what="new")])
    command.main(["--write", "--only", "flatness"])
    text, short = (page.read_text() for page in pages)
    assert "| kept |" in text and "| new |" in text and "| replaced |" not in text
    assert "that machine" in text and "Measured on this machine" in text
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "n; why |" in text and "n; why |" not in short  # the short page gives limits alone


def test_neither_quick_numbers_nor_those_of_a_busy_machine_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        command.main(["--write", "--quick"])
    monkeypatch.setattr(command, "machine", lambda options, cores: ("this machine", True))
    with pytest.raises(SystemExit, match=r"busy \(this machine\)"):
        command.main(["--write"])


def test_a_machine_is_busy_when_other_work_takes_the_cores_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(harness.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(harness.torch, "get_num_threads", lambda: 1)
    for load, one, all_of_them in ((0.2, False, False), (3.0, False, True), (4.5, True, True)):
        monkeypatch.setattr(harness.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert harness.machine(Options())[1] is one
        assert harness.machine(Options(), cores=4)[1] is all_of_them


@pytest.mark.slow
def test_the_rows_for_a_gpu_run_as_far_as_a_cpu_can_show() -> None:
    (row,) = gpu.run(Options(quick=True))
    assert "frames/s" in row.result and "compiled" not in row.what
    if not torch.cuda.is_available():
        assert gpu.run(Options()) == []
