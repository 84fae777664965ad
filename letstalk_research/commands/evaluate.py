"""`letstalk evaluate -o DIR [--suite …]`: measure a model on people and sentences it was not trained on."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letstalk_core.cli.options import scale
from letstalk_core.errors import ConfigError, OutputError

from ..evaluation.paper.weights import WEIGHTS

if TYPE_CHECKING:
    from letstalk_core.networks.load import ModelBundle

    from ..evaluation.bundle_subject import BundleSubject
    from ..evaluation.report import Report
    from ..evaluation.store import ClipResult

# Where `sudo apt install pocketsphinx-testdata` puts sentences that a person read for LibriVox, whose recordings
# are in the public domain.
RECORDINGS = Path("/usr/share/pocketsphinx/test/data/librivox")

SUITES = ("clips", "demo", "photo", "real", "dub")
# Options that belong to some suites only.
OWN = {
    "quick": ("demo", "photo"), "parts": ("demo", "photo"), "drift_minutes": ("demo",), "drift_people": ("demo",),
    "recordings": ("demo",), "portraits": ("photo",), "landmarks": ("photo",), "long_minutes": ("photo",),
    "videos": ("real", "dub"),
}  # fmt: skip
NEEDED = {
    "photo": ("portraits", "a folder of held-out stills"), "real": ("videos", "a film or a folder of them"),
    "dub": ("videos", "a film or a folder of them"),
}  # fmt: skip


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on drawn faces, photographs or films",
        description="Draw people who are in no training data, let the model speak held-out sentences with their"
        " portraits, and compare lips, colours, drift and sharpness with the truth. `--suite demo` fills the table"
        " of drawn faces in docs/demo-model.md: long video, silence, noise, several seeds, speed; `--suite photo`"
        " that of photographs, on held-out stills of --portraits; `--suite real` compares with filmed lips,"
        " `--suite dub` dubbed films with simply pasted ones. Needs espeak-ng. With --truth no model runs:"
        " --videos are compared with it as papers do.",
    )
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="DIR", help="folder for report.json, report.md, plots and sheets")
    add("--model", metavar="DIR", help="model folder (default: the demo model)")
    add("--suite", choices=SUITES, default="clips", help="clips: drawn faces, speech only; demo: all")
    add("--portraits", metavar="FOLDER", help="with --suite photo: stills with landmarks.npz and portraits.csv")
    add("--landmarks", metavar="FILE", help="with --suite photo: the landmarks, if they are elsewhere")
    add(
        "--videos",
        metavar="DIR",
        help="with --suite real, dub: films of people who speak; with --truth: any videos",
    )
    add_truth(add)
    add("--long-minutes", type=float, metavar="N", help="with --suite photo: also one video of N minutes")
    add("--quick", action="store_true", help="with --suite demo or photo: a small version, with wide intervals")
    add("--parts", metavar="A,B", help="with --suite demo or photo: only these parts (default: all)")
    add(
        "--drift-minutes", type=float, metavar="N", help="with --suite demo: length of the long video (default 10)"
    )
    add("--drift-people", type=int, metavar="N", help="with --suite demo: long videos (default 1)")
    add(
        "--recordings",
        nargs="+",
        metavar="FILE",
        default=[],
        help="with --suite demo: recordings of people speaking",
    )
    add("--clips", type=int, help="people to test (default 24, with --suite demo 40, photo 44)")
    add("--seconds", type=float, help="length of each clip (default 6.4, with --suite photo 4)")
    add("--seed", type=int, default=0, help="same seed, same people and sentences (default 0)")
    add("--steps", type=int, help="sampling steps per clip (default: by model)")
    add("--solver", help="euler, heun, dpmpp_2m or ddpm (default: by model)")
    add(
        "--cfg-audio",
        type=scale,
        metavar="SCALE",
        help="audio guidance; 1 is none, 1.6:1.0 falls over the steps (default: by model)",
    )
    add(
        "--memory-noise",
        type=float,
        metavar="SIGMA",
        help="noise on remembered frames, 0 to 1 (default: by model)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="of the models")
    add("--threads", type=int, help="CPU threads")
    add("--overwrite", action="store_true", help="start anew, replacing results")
    add("--json", action="store_true", help="print the results as JSON on stdout")
    add("--quiet", action="store_true", help="print errors only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from letstalk_core.cli.hardware import at_least, choose_device, choose_dtype, use_threads
    from letstalk_core.generate.talking_portrait import GenerateSettings
    from letstalk_core.networks.load import load_bundle
    from letstalk_core.sampling.guidance import as_scale
    from letstalk_core.sampling.memory_bank import MemorySettings

    from ..evaluation.bundle_subject import BundleSubject
    from ..evaluation.store import Store

    if args.truth is not None:
        return evaluate_pairs(args)
    for option in WEIGHTS:
        if getattr(args, option) is not None:
            raise ConfigError(f"--{option} belongs to --truth; add that, or leave it out")
    folder, resumable = Path(args.output), args.suite != "clips"
    for name, suites in OWN.items():
        if getattr(args, name) and args.suite not in suites:
            words = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{words} belongs to --suite {' or '.join(suites)}; add that, or leave it out")
    name, what = NEEDED.get(args.suite, ("suite", ""))
    if not getattr(args, name):
        raise ConfigError(f"--suite {args.suite} needs --{name}, {what}")
    if (folder / "report.json").exists() and not args.overwrite and not resumable:
        raise OutputError(f"{folder / 'report.json'}: exists already; add --overwrite or choose another folder")
    at_least(1, clips=args.clips, drift_people=args.drift_people)
    use_threads(args.threads)
    device = choose_device(args.device)
    begun = time.perf_counter()
    bundle = load_bundle(args.model, device=device, dtype=choose_dtype(args.dtype, device))
    first_load = time.perf_counter() - begun
    memory = MemorySettings(noise_sigma=args.memory_noise) if args.memory_noise is not None else None
    cfg_audio = None if args.cfg_audio is None else as_scale(args.cfg_audio)
    settings = GenerateSettings(steps=args.steps, solver=args.solver, cfg_audio=cfg_audio, memory=memory)
    subject = BundleSubject(bundle, settings)
    if resumable and args.overwrite:
        Store.discard(folder / "work")
    show = _Show(args.quiet)
    shared = {"out_dir": folder, "seed": args.seed, "notes": _notes(subject), "progress": show.clip}
    if args.suite == "demo":
        report = _demo(args, subject, shared, first_load, show.line)
    else:
        measure = {"clips": _clips, "photo": _photo, "real": _films, "dub": _films}
        report = measure[args.suite](args, subject, shared)
    if args.json:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    elif not args.quiet:
        sys.stdout.write(report.to_markdown())
    return 0


def _notes(subject: BundleSubject) -> dict[str, Any]:
    resolved = {k: v for k, v in subject.settings.to_dict().items() if k != "seed"}
    return {
        "steps": subject.settings.steps,
        "generation": resolved,
        "models_sha256": subject.bundle.hashes(),
        "device": subject.bundle.device.type,
        "dtype": str(subject.bundle.dtype).removeprefix("torch."),
    }


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; others keep the suite's own values."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _parts(args: argparse.Namespace) -> dict[str, Any]:
    return {"parts": tuple(args.parts.split(","))} if args.parts else {}


def _clips(args: argparse.Namespace, subject: BundleSubject, shared: dict[str, Any]) -> Report:
    from ..evaluation.suite import run_suite

    return run_suite(subject, **_given(args, "clips", "seconds"), **shared)


def _demo(
    args: argparse.Namespace,
    subject: BundleSubject,
    shared: dict[str, Any],
    first_load: float,
    announce: Callable[[str], None],
) -> Report:
    from ..evaluation.demo_suite import Budget, run_demo

    assert subject.settings.steps is not None
    budget = Budget.quick() if args.quick else Budget()
    return run_demo(
        subject,
        replace(budget, **_given(args, "clips", "seconds", "drift_minutes", "drift_people")),
        recordings=[Path(name) for name in args.recordings] or sorted(RECORDINGS.glob("*.wav")),
        facts=_facts(subject.bundle, first_load),
        steps=subject.settings.steps,
        announce=announce,
        **_parts(args),
        **shared,
    )


def _photo(args: argparse.Namespace, subject: BundleSubject, shared: dict[str, Any]) -> Report:
    from ..evaluation.face_curves import FinderReader
    from ..evaluation.photo_suite import PhotoBudget, run_photo
    from ..evaluation.photo_trials import load_test_stills

    budget = PhotoBudget.quick() if args.quick else PhotoBudget()
    return run_photo(
        subject,
        load_test_stills(Path(args.portraits), Path(args.landmarks) if args.landmarks else None, args.seed),
        FinderReader(),
        replace(budget, **_given(args, "clips", "seconds", "long_minutes")),
        movement=subject.bundle.audio_projection.config.movement,
        **_parts(args),
        **shared,
    )


def _films(args: argparse.Namespace, subject: BundleSubject, shared: dict[str, Any]) -> Report:
    from ..evaluation.face_curves import FinderReader
    from ..evaluation.film_suites import find_films, run_dub, run_real

    films = find_films(Path(args.videos))[: args.clips]
    run = run_dub if args.suite == "dub" else run_real
    return run(subject, films, FinderReader(), **_given(args, "seconds"), **shared)


def _facts(bundle: ModelBundle, first_load: float) -> dict[str, float]:
    """Size of the bundle and time to load it: the fastest of three, and the first, which imports libraries too."""
    from letstalk_core.networks.load import load_bundle

    if bundle.path is None:
        return {}
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        load_bundle(bundle.path, device=bundle.device, dtype=bundle.dtype)
        seconds.append(time.perf_counter() - begun)
    size = sum(path.stat().st_size for path in bundle.path.glob("*.safetensors"))
    return {
        "bundle: MB": size / 1e6,
        "bundle: seconds to load": min(seconds),
        "bundle: seconds to load first, with imports": first_load,
    }


class _Show:
    """One line on stderr for each finished clip."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._started = quiet, time.monotonic()

    def line(self, text: str) -> None:
        if not self._quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def clip(self, part: str, done: int, clips: int, result: ClipResult, found: bool) -> None:
        names = ("lips correlation: jaw", "opening against jaw: generated")
        jaw = next((result.metrics[name] for name in names if name in result.metrics), None)
        shown = "" if jaw is None else f"jaw correlation {jaw:.2f}, "
        seconds = time.monotonic() - self._started
        self.line(f"{part} clip {done}/{clips}: {shown}{'from an earlier run' if found else f'{seconds:.0f} s'}")


def add_truth(add: Callable[..., Any]) -> None:
    """The options. `add` is a parser's `add_argument`."""
    add("--truth", metavar="DIR", help="compare --videos with those of the same names in this folder")
    for weights in WEIGHTS.values():
        add(
            f"--{weights.option}",
            metavar="FILE",
            help=f"with --truth: {weights.file}, of {weights.project}; without it its row is left out",
        )


def evaluate_pairs(args: argparse.Namespace) -> int:
    """Raises: ConfigError, OutputError, and what `run_table` raises."""
    from letstalk_core.cli.hardware import at_least, choose_device, use_threads

    from ..evaluation.face_curves import FinderReader
    from ..evaluation.paper.table import run_table

    folder = Path(args.output)
    if args.videos is None:
        raise ConfigError("--truth needs --videos, the folder of videos that are compared with it")
    if args.suite != "clips" or args.model is not None:
        raise ConfigError("with --truth no model runs; leave out --suite and --model")
    if (folder / "report.json").exists() and not args.overwrite:
        raise OutputError(f"{folder / 'report.json'}: exists already; add --overwrite or choose another folder")
    at_least(1, clips=args.clips)
    use_threads(args.threads)

    def say(line: str) -> None:
        if not args.quiet:
            sys.stderr.write(line + "\n")

    table = run_table(
        Path(args.videos),
        Path(args.truth),
        {name: Path(getattr(args, name)) for name in WEIGHTS if getattr(args, name) is not None},
        FinderReader(),
        seconds=10.0 if args.seconds is None else args.seconds,
        clips=args.clips,
        device=str(choose_device(args.device)),
        say=say,
    )
    table.save(folder)
    if args.json:
        sys.stdout.write(json.dumps(table.to_dict(), indent=2) + "\n")
    elif not args.quiet:
        sys.stdout.write(table.to_markdown())
    return 0
