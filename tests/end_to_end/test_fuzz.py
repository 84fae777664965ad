"""Damaged input of every kind: an error of ours, in time, in little memory, and nothing written elsewhere.

`python -m benchmarks.fuzz` does the same with thousands of cases.
"""

from __future__ import annotations

import sys

import pytest

from benchmarks.fuzz.__main__ import Result, main, run, table
from benchmarks.fuzz.kinds import KINDS

CASES = {name: 100 if name in ("model file", "config.json") else 200 for name in KINDS}  # those build networks
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the worker limits itself as Linux does")


@LINUX
def test_no_damaged_input_does_harm() -> None:
    results = run(CASES, seed=7)
    defects = [f"{r.kind}, case {number}: {what}" for r in results for number, what in r.defects]
    assert not defects, "\n".join(defects)
    assert all(r.cases == CASES[r.kind] and r.outcomes["refused"] for r in results)


@LINUX
def test_the_watch_sees_crashes_hangs_memory_and_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.fuzz import __main__ as command

    monkeypatch.setattr(command, "SECONDS", 4.0)  # clearing much memory takes a busy machine more than one
    monkeypatch.setenv("LETSTALK_FUZZ_SELF_TEST", "1")
    (result,) = run({"self test": 6}, seed=0)
    assert [what.partition(":")[0] for _, what in result.defects] == ["crash", "crash", "hang", "memory", "escape"]
    assert result.cases == 6 and result.outcomes["accepted"] == 1


def test_results_become_a_table() -> None:
    result = Result("sound")
    result.add(0, "refused", "MediaError")
    result.add(1, "accepted", megabytes=2000)
    assert "| sound | 2 | 1 | 0 | 0 | 0 | 1 | 0 | 2000 MiB |" in table([result])


@LINUX
def test_the_command_repeats_one_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kind", "manifest", "--first", "3", "--cases", "2"]) == 0
    assert "2 cases, 0 defects, seed 0" in capsys.readouterr().out
