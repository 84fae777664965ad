"""`python -m benchmarks [--quick] [--only ROW …] [--write]`: measure, and print the table or write it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import attention, autoencoder, denoiser, long_runs
from benchmarks.harness import Options, Row, fast_bfloat16, machine

ROWS: dict[str, Callable[[Options], list[Row]]] = {
    "autoencoder": autoencoder.run,
    "attention": attention.run,
    "denoiser": denoiser.run,
    "resolution": denoiser.run_resolution,
    "flatness": long_runs.run_flatness,
    "memory": long_runs.run_memory,
    "overhead": long_runs.run_overhead,
    "guidance": long_runs.run_guidance,
}
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- table: written by python -m benchmarks --write -->", "<!-- end of table -->"
HEAD = ("what", "against", "measured", "to reach", "reached", "notes")


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    words = {True: "yes", False: "**no**", None: ""}
    lines = [HEAD, ("---",) * len(HEAD)]
    lines += [(r.what, r.against, r.result, r.reach, words[r.reached], r.note) for r in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write(text: str) -> None:
    """Put the text between the marks of README.md."""
    page = README.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="tiny networks: shows that all runs, measures nothing"
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repetitions (5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1: times are CPU seconds)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    args = parser.parse_args(arguments)
    if args.write and (args.quick or set(args.only) != set(ROWS)):
        parser.error("--write: needs all rows, without --quick")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    text, busy = machine(Options(device=device))
    if args.write and busy:
        parser.error(f"--write: the machine is busy ({text}); its numbers would say nothing")
    fast, words = fast_bfloat16(device)
    dtypes = (torch.float32, torch.bfloat16) if fast else (torch.float32,)
    options = Options(quick=args.quick, rounds=args.rounds, device=device, dtypes=dtypes)
    half = f"Speed of bfloat16 matrix products against float32 ones: {words}"
    text = f"{text}. {half}{'' if fast else ': no rows in bfloat16 here'}."
    if args.quick or busy:
        text = f"PROVISIONAL ({'quick' if args.quick else 'busy machine'}). {text}"
    print(text, file=sys.stderr)
    rows = []
    for name in args.only:
        begin = time.perf_counter()
        found = ROWS[name](options)
        if args.quick:  # nothing is reached with other networks than those of the table
            found = [dataclasses.replace(row, reached=None) for row in found]
        rows += found
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        print(table(found).partition("\n| ---")[2].partition("\n")[2], file=sys.stderr)
    result = f"{text}\n\n{table(rows)}"
    print(result)
    if args.write:
        write(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
