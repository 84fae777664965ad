"""`letstalk experiment NAME …`: try the paper's ideas with small networks and write what came out as pages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

NAMES = ("fusion", "memory", "attention", "prediction")
EVERYTHING = "all"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "experiment",
        help="try the paper's ideas with small networks",
        description="Train small variants of the denoiser at an equal budget, measure them on held-out drawn"
        " people, and write a page with a table and plots for each experiment. Finished trainings and"
        " measurements are kept in the output folder, so the same command goes on after any stop. Words on a"
        " page outside of its marked results are kept. Needs espeak-ng and matplotlib.",
    )
    add = parser.add_argument
    add("names", nargs="+", choices=(*NAMES, EVERYTHING), metavar="NAME", help=f"{', '.join(NAMES)}, or all")
    add("--data", required=True, metavar="DIR", help="folder encoded by `letstalk encode`, with validation clips")
    add("--autoencoder", required=True, metavar="FILE", help="the autoencoder that encoded it")
    add("--audio-encoder", required=True, metavar="FILE", help="the audio encoder that encoded it")
    add("-o", "--output", required=True, metavar="RUNS", help="folder for models and measurements")
    add("--docs", default="docs", metavar="DIR", help="pages go to DIR/experiments (default docs)")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--steps", type=int, default=0, help="training steps of each variant")
    budget.add_argument(
        "--minutes-per-model",
        type=float,
        default=0.0,
        metavar="M",
        help="as many steps for each variant as the paper's choice does in M minutes (timed once)",
    )
    add(
        "--equal",
        choices=("steps", "time"),
        default="steps",
        help="with --minutes-per-model: time gives each variant M minutes, whatever its steps (default steps)",
    )
    add(
        "--predict",
        choices=("sample", "flow", "v"),
        help="what the networks predict, but for those of the experiment on that (default sample)",
    )
    add("--seeds", type=int, nargs="+", metavar="N", help="training seeds; each variant is trained with all")
    add("--batch-size", type=int, help="clips a step (default 4)")
    add("--clip-frames", type=int, help="frames that the network makes at once (default 16)")
    add("--hidden-size", type=int, help="width of the network (default 96)")
    add("--depth", type=int, help="blocks of the network (default 3)")
    add("--people", type=int, help="held-out people in short clips (default 12)")
    add("--seconds", type=float, help="length of their clips (default 2.56)")
    add("--long-people", type=int, metavar="N", help="people in long videos (default 3)")
    add("--long-clips", type=int, metavar="N", help="clips of a long video (default 104)")
    add("--long-steps", type=int, metavar="N", help="sampling steps of its clips (default 6)")
    add("--slow-people", type=int, metavar="N", help="people measured with 250 steps (default 3)")
    add("--seed", type=int, default=0, help="same seed, same held-out people (default 0)")
    add("--device", choices=("auto", "cpu"), default="auto", help="cpu, or auto for a GPU if there is one")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of training and of the autoencoder")
    add("--threads", type=int, help="CPU threads")
    add("--quiet", action="store_true", help="print errors only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from letstalk_core.cli.hardware import use_threads

    from ..experiments.suite import run_experiments
    from ..experiments.variants import Budget
    from ..training.runtime import Stopped
    from . import show_log

    use_threads(args.threads)
    if not args.quiet:
        show_log()
    given = {name: getattr(args, name) for name in _FIELDS if getattr(args, name) is not None}
    if args.seeds:
        given["seeds"] = tuple(args.seeds)
    budget = Budget(
        steps=args.steps, minutes=args.minutes_per_model, equal=args.equal, device=args.device,
        precision=args.precision, **given,
    )  # fmt: skip
    names = NAMES if EVERYTHING in args.names else tuple(dict.fromkeys(args.names))
    try:
        run_experiments(
            names,
            budget,
            data=Path(args.data),
            autoencoder=Path(args.autoencoder),
            audio_encoder=Path(args.audio_encoder),
            runs=Path(args.output),
            docs=Path(args.docs),
            seed=args.seed,
            command=_command(args, names),
            written=lambda page: print(f"wrote {page}", file=sys.stderr),
        )
    except Stopped as stopped:
        sys.stderr.write("stopped; run the same command again to go on\n")
        return 128 + stopped.signal
    return 0


_FIELDS = (
    "predict",
    *("batch_size", "clip_frames", "hidden_size", "depth", "people", "seconds"),
    *("long_people", "long_clips", "long_steps", "slow_people"),
)


def _command(args: argparse.Namespace, names: tuple[str, ...]) -> str:
    """The command without the paths of this machine, as the pages show it."""
    words = ["letstalk experiment", *names, "--data DATA --autoencoder FILE --audio-encoder FILE"]
    words.append(f"--steps {args.steps}" if args.steps else f"--minutes-per-model {args.minutes_per_model:g}")
    if args.equal != "steps":
        words.append(f"--equal {args.equal}")
    if args.seeds:
        words.append(f"--seeds {' '.join(map(str, args.seeds))}")
    for name in _FIELDS:
        value = getattr(args, name)
        if value is not None:
            text = value if isinstance(value, str) else f"{value:g}"
            words.append(f"--{name.replace('_', '-')} {text}")
    if args.seed:
        words.append(f"--seed {args.seed}")
    if args.precision != "auto":
        words.append(f"--precision {args.precision}")
    return " ".join([*words, "-o RUNS --docs docs"])
