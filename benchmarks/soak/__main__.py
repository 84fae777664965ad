"""`python -m benchmarks.soak [--minutes 30] [--only SCENARIO …] [--json FILE]`: break runs, count what is lost.

Every scenario runs once; those that depend on chance run again, each time with other random numbers, until the
minutes are over. Prints a table in Markdown. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.harness import Options, machine
from benchmarks.soak import drift, long_run, retakes, runs, tested, world  # noqa: F401  scenarios
from benchmarks.soak.harness import SCENARIOS, Outcome, Soak
from benchmarks.soak.zygote import Zygote


def rounds(names: Sequence[str], deadline: float) -> Iterator[str]:
    """Every name once, then those to repeat in turn until the deadline, and never less than once."""
    yield from names
    again = [name for name in names if SCENARIOS[name][1]]
    while again:
        for name in again:
            if time.monotonic() >= deadline:
                return
            yield name


def table(results: dict[str, tuple[int, Outcome]]) -> str:
    """Markdown."""
    lines = ["| scenario | rounds | found | failures |", "| --- | --- | --- | --- |"]
    for name, (count, outcome) in results.items():
        found = ", ".join(
            f"{key}: {value:g}" if isinstance(value, (int, float)) else f"{key}: {value}"
            for key, value in outcome.figures.items()
        )
        lines.append(f"| {name} | {count} | {found} | {len(outcome.failures) or 'none'} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=0.0, help="go on at least this long (0: every scenario once)")
    names = ", ".join(SCENARIOS)
    add("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="SCENARIO", help=names)
    add("--kills", type=int, default=40, help="kills in each round (40)")
    add("--seconds", type=float, default=12.0, help="of speech in the short runs (12)")
    add("--long-minutes", type=float, default=60.0, help="of speech in the long run (60)")
    add("--seed", type=int, default=0, help="of the random moments (0)")
    add("--folder", type=Path, help="where to work; gigabytes are not needed (default: a temporary folder)")
    add("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(arguments)
    if not hasattr(os, "fork"):
        parser.error("needs a system with fork, such as Linux")
    torch.set_num_threads(1)
    text, _ = machine(Options())
    base = args.folder or Path(tempfile.mkdtemp(prefix="letstalk-soak-"))
    began, results = time.monotonic(), {}
    try:
        with Zygote(base / "zygote") as zygote:
            for number, name in enumerate(rounds(args.only, began + 60 * args.minutes)):
                folder = base / f"round-{number:04d}"
                folder.mkdir(parents=True)
                chance = random.Random(f"{args.seed} {number}")
                amounts = {"kills": args.kills, "seconds": args.seconds, "long_minutes": args.long_minutes}
                soak = Soak(folder, chance, zygote, **amounts)
                outcome = SCENARIOS[name][0](soak)
                count, total = results.setdefault(name, (0, Outcome()))
                total.add(outcome)
                results[name] = (count + 1, total)
                for failure in outcome.failures:
                    print(f"{name}, round {number}: {failure}", file=sys.stderr)
                print(f"{(time.monotonic() - began) / 60:.1f} min: {name}, round {number} done", file=sys.stderr)
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        if args.folder is None:
            shutil.rmtree(base, ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    text = f"{text}, {minutes:.0f} minutes"
    print(f"{text}\n\n{table(results)}")
    if args.json is not None:
        scenarios = {
            name: {"rounds": count, "figures": outcome.figures, "failures": outcome.failures}
            for name, (count, outcome) in results.items()
        }
        content = {"machine": text, "scenarios": scenarios}
        args.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return 1 if any(outcome.failures for _, outcome in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
