"""`python -m benchmarks [--quick] [--only PART …] [--write]`: measure, print the table, and write it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks import attention, autoencoder, demo, denoiser, gpu, long_runs, tables
from benchmarks.harness import Options, Row, fast_bfloat16, machine

PARTS: dict[str, Callable[[Options], list[Row]]] = {
    "autoencoder": autoencoder.run,
    "attention": attention.run,
    "denoiser": denoiser.run,
    "resolution": denoiser.run_resolution,
    "demo": demo.run,
    "overhead": long_runs.run_overhead,
    "guidance": long_runs.run_guidance,
    "flatness": long_runs.run_flatness,
    "memory": long_runs.run_memory,
    "gpu": gpu.run,
}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny networks: shows that all runs, measures nothing")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    add("--rounds", type=int, default=5, help="interleaved repetitions (5; 2 of what takes long)")
    add("--threads", type=int, default=1, help="CPU threads (1: times are CPU seconds)")
    add("--device", default="cpu", help="cpu or cuda")
    add("--write", action="store_true", help="keep the results and write the tables of the README files")
    add(
        "--busy",
        action="store_true",
        help="with --write: on a machine that does something else too; tables say so",
    )
    args = parser.parse_args(arguments)
    if args.write and args.quick:
        parser.error("--write: not with --quick")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = _arguments(arguments)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    everything = (os.cpu_count() or 1) if "demo" in args.only else 0
    text, busy = machine(Options(device=device), cores=everything)
    if args.write and busy and not args.busy:
        sys.exit(f"--write: the machine is busy ({text}); its numbers would say little (--busy writes them)")
    fast, words = fast_bfloat16(device)
    dtypes = (torch.float32, torch.bfloat16) if fast else (torch.float32,)
    options = Options(quick=args.quick, rounds=args.rounds, device=device, dtypes=dtypes)
    half = f"Products of matrices in bfloat16 are {words} as fast as in float32"
    text = f"Measured on {text}. {half}{'' if fast else ': no rows in bfloat16 here'}."
    if args.quick or busy:
        text = f"PROVISIONAL ({'quick' if args.quick else 'busy machine'}). {text}"
    print(text, file=sys.stderr)
    rows = []
    for name in args.only:
        torch.manual_seed(0)
        begin = time.perf_counter()
        found = PARTS[name](options)
        if args.quick:  # nothing is reached with other networks than those of the table
            found = [dataclasses.replace(row, reached=None) for row in found]
        rows += found
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        print(tables.table(found).partition("\n| ---")[2].partition("\n")[2], file=sys.stderr, flush=True)
        if args.write and found:
            tables.save(tables.load(), name, text, found)
    print(f"{text}\n\n{tables.table(rows)}")
    if args.write:
        for page, short in tables.PAGES.items():
            tables.write_page(page, tables.render(tables.load(), list(PARTS), short=short))
    return 0


if __name__ == "__main__":
    sys.exit(main())
