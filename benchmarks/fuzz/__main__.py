"""`python -m benchmarks.fuzz`: damaged input of every kind, in watched processes, and a table of what came of it.

A case passes when it is accepted or refused with an error of `letstalk_core.errors`, within 5 s and 1 GiB, and
leaves everything outside its folder as it was. Cases are drawn from --seed: `--kind KIND --first N --cases 1`
repeats one. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fuzz.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MIB = 5.0, 1024  # a case may take
START_SECONDS = 300.0  # of work, for imports
WATCH_SECONDS = 1.0  # between looks of the watchdog
STALLED_SECONDS = 600.0  # of waiting without working, as for a pipe; a busy machine may take long, too


Work = tuple[str, int, int]  # kind, first case, the case after the last


@dataclass
class Result:
    """What came of the cases of one kind. `defects`: (number, what) of those that failed."""

    kind: str
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    defects: list[tuple[int, str]] = field(default_factory=list)
    megabytes: float = 0.0
    seconds: float = 0.0

    def add(
        self, number: int, outcome: str, error: str = "", megabytes: float = 0.0, seconds: float = 0.0
    ) -> None:
        self.cases += 1
        if outcome in ("accepted", "refused") and megabytes > MIB:
            outcome, error = "memory", f"{megabytes:.0f} MiB ({error or outcome})"
        if outcome in ("accepted", "refused") and seconds > SECONDS:
            outcome, error = "hang", f"{seconds:.1f} s ({error or outcome})"
        self.outcomes[outcome] += 1
        if outcome == "refused":
            self.errors[error] += 1
        elif outcome != "accepted":
            self.defects.append((number, f"{outcome}: {error}"))
        self.megabytes, self.seconds = max(self.megabytes, megabytes), max(self.seconds, seconds)


Told = Callable[[Result], None]


def run(cases: Mapping[str, int], seed: int = 0, first: int = 0, told: Told | None = None) -> list[Result]:
    """Read so many damaged inputs of each kind in a process that is watched, and replaced when it fails.

    `told` gets the result of a kind when it is complete.
    """
    results = {kind: Result(kind) for kind in cases}
    work = [(kind, first, first + count) for kind, count in cases.items()]
    with tempfile.TemporaryDirectory(prefix="letstalk-fuzz-") as folder:
        while work:
            work = _process(results, work, seed, Path(folder), told)
    return list(results.values())


def _process(
    results: Mapping[str, Result], work: Sequence[Work], seed: int, folder: Path, told: Told | None
) -> list[Work]:
    """One process until it is done or has to be ended; returns what is left."""
    command = [sys.executable, "-m", "benchmarks.fuzz.worker", json.dumps(work), str(seed), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}
    left = list(work)

    def done(outcome: str, error: str = "", megabytes: float = 0.0, seconds: float = 0.0) -> None:
        kind, number, stop = left[0]
        results[kind].add(number, outcome, error, megabytes, seconds)
        left[:1] = [(kind, number + 1, stop)] if number + 1 < stop else []
        if told is not None and (not left or left[0][0] != kind):
            told(results[kind])

    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, bufsize=0
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        pending, watch = b"", _Watch(process.pid, START_SECONDS, 10 * START_SECONDS)
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(WATCH_SECONDS):
                if (what := watch.expired()) is None:
                    continue
                process.kill()
                done("hang", what)
                return left
            data = os.read(process.stdout.fileno(), 65_536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                event: dict[str, Any] = json.loads(line)
                if event:
                    done(**event)
                watch = _Watch(process.pid, SECONDS, STALLED_SECONDS)
        code = process.wait()
        if left:
            errors.seek(0)
            tail = errors.read().decode(errors="replace").strip().splitlines()[-1:]
            done("crash", f"the process ended with {code} {' '.join(tail)}")
    return left


class _Watch:
    """Processor time and wall time of one case."""

    def __init__(self, pid: int, working: float, waiting: float) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._working, self._waiting = working, waiting
        self._start, self._began = self._used(), time.monotonic()

    def _used(self) -> float:
        try:
            fields = self._stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def expired(self) -> str | None:
        used, waited = self._used() - self._start, time.monotonic() - self._began
        if used <= self._working and waited <= self._waiting:
            return None
        return f"no answer after {used:.0f} s of work, {waited:.0f} s in all"


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = [
        "| input | cases | refused | accepted | hangs | crashes | over 1 GiB | escapes | most memory | longest |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        n = r.outcomes
        lines.append(
            f"| {r.kind} | {r.cases} | {n['refused']} | {n['accepted']} | {n['hang']} | {n['crash']}"
            f" | {n['memory']} | {n['escape']} | {r.megabytes:.0f} MiB | {r.seconds:.2f} s |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="in all, shared out to the kinds (10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args(arguments)
    weights = sum(KINDS[kind].weight for kind in args.kind)
    cases = {kind: max(1, round(args.cases * KINDS[kind].weight / weights)) for kind in args.kind}

    def told(found: Result) -> None:
        print(f"{found.kind}: {found.cases} cases", file=sys.stderr, flush=True)
        for number, what in found.defects[:40]:
            print(f"  case {number}: {what}", file=sys.stderr, flush=True)

    results = run(cases, args.seed, args.first, told)
    print(table(results))
    defects = sum(len(r.defects) for r in results)
    print(f"\n{sum(r.cases for r in results)} cases, {defects} defects, seed {args.seed}")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
