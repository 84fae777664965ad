"""Damaged inputs, where `benchmarks.fuzz` is there to make them."""

from __future__ import annotations

import importlib
import importlib.util

from benchmarks.soak.harness import Outcome, Soak, scenario

__all__ = ["bad_inputs"]

CASES = 20  # of each kind in a round


def bad_inputs(soak: Soak) -> Outcome:
    """Files that are broken in every way: each is taken or refused in one line, and nothing else happens."""
    fuzz = importlib.import_module("benchmarks.fuzz.__main__")
    kinds = importlib.import_module("benchmarks.fuzz.kinds").KINDS
    outcome = Outcome()
    for result in fuzz.run(dict.fromkeys(kinds, CASES), seed=soak.random.randrange(2**31)):
        outcome.count("inputs", result.cases)
        outcome.failures += [f"{result.kind} {number}: {what}" for number, what in result.defects]
    return outcome


if importlib.util.find_spec("benchmarks.fuzz") is not None:
    scenario("bad inputs")(bad_inputs)
