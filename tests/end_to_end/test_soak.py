"""Real processes, really killed: the scenarios of the soak in small."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak import __main__ as command
from benchmarks.soak import cancels, drift, numbers, retakes, runs, world
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


def test_a_run_killed_at_thirty_moments_ends_with_the_frames_of_an_undisturbed_one(soak: Soak) -> None:
    outcome = runs.kills(soak)
    assert not outcome.failures
    assert sum(float(n) for name, n in outcome.figures.items() if name.startswith("kills")) >= 30
    assert len([name for name in outcome.figures if name.startswith("kills")]) == 3  # all ways of dying
    assert float(outcome.figures["videos finished"]) >= 1


def test_two_runs_of_one_work_folder_do_not_meet_and_a_kill_frees_it(soak: Soak) -> None:
    outcome = runs.concurrency(soak)
    assert not outcome.failures


@pytest.mark.parametrize("scenario", [world.like_names, world.changed_input, world.links, world.flipped_bytes])
def test_a_world_that_changes_around_a_run_loses_nothing(scenario: Callable[[Soak], Outcome], soak: Soak) -> None:
    assert not scenario(soak).failures


def test_a_full_disk_stops_a_run_which_continues_with_the_space_it_asked_for(soak: Soak) -> None:
    outcome = runs.disk_full(soak)
    assert not outcome.failures and outcome.figures["stops"] == 1


def test_a_retake_changes_its_seconds_only_whenever_it_is_killed(soak: Soak) -> None:
    outcome = retakes.retake(soak)
    assert not outcome.failures
    assert float(outcome.figures["kills"]) >= 3
    assert float(outcome.figures["frames outside the part, all the same"]) > 0


def test_cancelled_runs_say_so_keep_their_work_and_continue(soak: Soak) -> None:
    outcome = cancels.cancel(replace(soak, kills=6))
    assert not outcome.failures
    assert outcome.figures["stops"] == 6 and float(outcome.figures["videos finished"]) >= 1


def test_runs_cancelled_in_one_process_leave_nothing_in_it(soak: Soak) -> None:
    outcome = cancels.cancel_in_one_process(replace(soak, kills=6))
    assert not outcome.failures
    assert outcome.figures["most threads left"] <= 0 and float(outcome.figures["runs"]) == 6 + cancels.WARM_UP


def test_a_drifting_run_that_is_killed_has_the_log_and_frames_of_an_undisturbed_one(soak: Soak) -> None:
    outcome = drift.drift(replace(soak, kills=16))
    assert not outcome.failures
    assert " of 8" in str(outcome.figures["clips re-anchored"])


def test_bad_numbers_are_found_in_every_stage_and_made_again(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "HOW", ("overflow",))
    outcome = numbers.numbers(soak)
    assert not outcome.failures and outcome.figures["bad numbers"] == 3 * len(numbers.STAGES)


def test_bad_numbers_that_nobody_finds_are_a_failure(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "HOW", ("nan",))
    monkeypatch.setattr(numbers, "STAGES", {"decoding": numbers.STAGES["decoding"]})
    unseen = "letstalk_core.networks.numerical_guard._attempt"
    monkeypatch.setattr(unseen, lambda run, network, judge: (run(network), None))
    assert numbers.numbers(soak).failures


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
