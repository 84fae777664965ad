"""Real processes, really killed: the scenarios of the soak in small."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak import __main__ as command
from benchmarks.soak import drift, retakes, runs, tested, world
from benchmarks.soak.harness import SCENARIOS, Outcome, Soak
from benchmarks.soak.long_run import long_run
from benchmarks.soak.zygote import Zygote

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("zygote")) as started:
        yield started


@pytest.fixture
def soak(zygote: Zygote, tmp_path: Path) -> Soak:
    return Soak(tmp_path, random.Random(7), zygote, kills=32, seconds=5.0, long_minutes=0.2)


@pytest.mark.parametrize(
    ("scenario", "kills", "at_least"),
    [
        (runs.kills, 32, {"kills (event)": 1, "kills (write)": 1, "kills (time)": 1, "videos finished": 1}),
        (runs.concurrency, 32, {}),
        (runs.disk_full, 32, {"stops": 1}),
        (retakes.retake, 32, {"kills": 3, "frames outside the part, all the same": 1}),
        (runs.cancel, 6, {"kills (stop)": 6, "videos finished": 1}),
        (drift.drift, 16, {"kills (event)": 1}),
        (world.like_names, 32, {"videos": 2}),
        (world.changed_input, 32, {}),
        (world.links, 32, {}),
    ],
)
def test_nothing_is_lost(
    scenario: Callable[[Soak], Outcome], kills: int, at_least: dict[str, int], soak: Soak
) -> None:
    outcome = scenario(replace(soak, kills=kills))
    assert not outcome.failures
    assert {name: n for name, n in at_least.items() if float(outcome.figures.get(name, 0)) < n} == {}


@pytest.mark.parametrize("status", [0, 1])
def test_a_scenario_of_tests_counts_them_and_fails_with_them(status: int) -> None:
    outcome = tested.outcome_of("tests", r"(\d+) passed", "-c", f"print('3 passed'); raise SystemExit({status})")
    assert outcome.figures == {"tests": 3} and len(outcome.failures) == status


def test_the_long_run_is_measured_and_its_sound_is_in_time(soak: Soak) -> None:
    outcome = long_run(soak)
    assert not [failure for failure in outcome.failures if "memory" not in failure]  # too short to judge memory
    assert outcome.figures["last frame at s"] == pytest.approx(12 - 1 / 25, abs=1e-3)


def test_a_failure_is_counted_printed_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds: list[int] = []

    def flaky(soak: Soak) -> Outcome:
        rounds.append(1)
        return Outcome({"tries": 1, "most bytes": len(rounds)}, ["broken"] if len(rounds) == 2 else [])

    monkeypatch.setitem(SCENARIOS, "flaky", (flaky, True))
    monkeypatch.setattr(command, "Zygote", contextlib.nullcontext)
    clock = iter(range(1000))
    monkeypatch.setattr(command.time, "monotonic", lambda: float(next(clock)))
    code = command.main(["--only", "flaky", "--minutes", "0.1", "--json", str(tmp_path / "r.json")])
    assert code == 1 and len(rounds) >= 3
    found = json.loads((tmp_path / "r.json").read_text())["scenarios"]["flaky"]
    assert found == {
        "rounds": len(rounds),
        "figures": {"tries": len(rounds), "most bytes": len(rounds)},
        "failures": ["broken"],
    }
    printed = capsys.readouterr()
    assert "| flaky |" in printed.out and "flaky, round 1: broken" in printed.err
