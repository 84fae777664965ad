"""Scenarios that are tests of the suite: what they tried is counted here, and that they passed is checked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import run
from benchmarks.fuzz import __main__ as fuzz
from benchmarks.fuzz.kinds import KINDS
from benchmarks.soak.harness import Outcome, Soak, scenario

TESTS = Path(__file__).resolve().parents[2] / "tests"
CASES = 20  # damaged inputs of each kind in a round
TESTED = {  # what is counted, and the tests
    # NaN, infinity and overflow in every stage: found there, named, and cured in float32 where that helps.
    "bad numbers": ("stages spoiled", "test_numerical_guard.py"),
    # Runs cancelled in every pass of the network: not one more pass, and no thread, file or memory is kept.
    "cancel in one process": ("tests passed", "test_cancel.py"),
    # Bytes flip in every file of a work folder: same frames, or a refusal. And other attacks on files.
    "flipped bytes": ("tests passed", "test_attacks.py"),
}


@scenario("node inputs", repeat=False)
def node_inputs(soak: Soak) -> Outcome:
    """Numbers, texts and choices that the schemas exclude, into every input of every node; where ComfyUI is."""
    comfyui = run.find_comfyui()
    if comfyui is None or not run.has(sys.executable, run.read_lines(comfyui / "requirements.txt")):
        return Outcome({"not tried": "no ComfyUI here"})
    return outcome_of(
        "values refused", r"(\d+) values refused", "comfy/inside/run.py", "test_hostile_values.py", "-q"
    )


@scenario("bad inputs")
def bad_inputs(soak: Soak) -> Outcome:
    """Files that are broken in every way: each is taken or refused in one line, and nothing else happens."""
    outcome = Outcome()
    for result in fuzz.run(dict.fromkeys(KINDS, CASES), seed=soak.random.randrange(2**31)):
        outcome.count("inputs", result.cases)
        outcome.failures += [f"{result.kind} {number}: {what}" for number, what in result.defects]
    return outcome


def outcome_of(figure: str, counted: str, *command: str) -> Outcome:
    """Of Python run with these arguments: the number that it prints where `counted` matches, as `figure`."""
    ended = subprocess.run([sys.executable, *command], cwd=TESTS, capture_output=True, text=True, check=False)
    found = re.search(counted, ended.stdout)
    outcome = Outcome({figure: int(found[1]) if found else 0})
    outcome.check(ended.returncode == 0, ended.stdout[-500:])
    return outcome


for name, (figure, file) in TESTED.items():
    command = ("-m", "pytest", "-q", f"end_to_end/{file}")
    scenario(name, repeat=False)(lambda soak, args=(figure, r"(\d+) passed", *command): outcome_of(*args))
