"""`letstalk generate PORTRAIT AUDIO -o out.mp4`: the talking video of one picture and a recording."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ConfigError, OutputError

if TYPE_CHECKING:
    from ..models import ModelBundle
    from ..pipeline import GenerateSettings, Portrait, Progress, Summary
    from ..protocols import FrameSink

__all__ = ["add_parser", "run"]

DEMO_NOTE = "note: using the bundled demo model, a small one trained on drawn faces only; --model DIR uses another"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "generate",
        help="make a talking video from a portrait and a recording",
        description="Make a video of round(seconds * fps) frames in which PORTRAIT speaks AUDIO. Ctrl-C ends it"
        " with what is done.",
    )
    add = parser.add_argument
    add("portrait", help="picture of one face")
    add("audio", help="speech: any sound or video file")
    add("-o", "--output", help="video to write, .mp4")
    add("--png", metavar="DIR", help="also (or only) write numbered PNG frames to this folder")
    add("--contact-sheet", metavar="PNG", help="also write a picture of evenly spaced frames")
    add("--model", metavar="DIR", help="model folder (default: the demo model)")
    add("--steps", type=int, help="sampling steps per clip (default: by model)")
    add("--solver", help="euler, heun, dpmpp_2m or ddpm (default: by model)")
    add("--schedule", choices=("model", "karras"), default="model", help="noise levels (default: the model's)")
    add("--shift", type=float, help="flow models: above 1 spends more steps at high noise (default: by model)")
    add("--seed", type=int, default=0, help="same seed, same video (default 0)")
    add("--fps", type=float, help="frames per second (default: what the model was trained at)")
    add(
        "--cfg-audio",
        type=float,
        metavar="SCALE",
        help="audio guidance; 1 is none and fastest (default: by model)",
    )
    add(
        "--cfg-portrait", type=float, default=1.0, metavar="SCALE", help="portrait guidance; 1 is none and fastest"
    )
    add("--size", metavar="N|WxH", help="frame size in pixels (default: what the model was trained at)")
    add("--crop-face", action="store_true", help="cut the picture around its largest face (needs the detector)")
    add(
        "--memory-noise",
        type=float,
        metavar="SIGMA",
        help="noise on remembered frames, 0 to 1 (default: by model)",
    )
    add(
        "--match-statistics",
        action="store_true",
        help="hold remembered frames to the portrait's colour statistics",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="of the models")
    add("--compile", action="store_true", help="compile the networks first (minutes; for long runs on a GPU)")
    add("--threads", type=int, help="CPU threads")
    add("--resume", action="store_true", help="keep finished clips in OUTPUT.work and continue from there")
    add("--overwrite", action="store_true", help="replace existing results")
    add("--json", action="store_true", help="print a summary as JSON on stdout")
    add("--quiet", action="store_true", help="print errors only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..models import load_bundle
    from ..pipeline import TalkingPortrait
    from ..resume import RUN_FILE, WorkFolder
    from .hardware import choose_device, choose_dtype, keep_freed_memory, use_threads
    from .progress import ProgressLine

    work = _work_folder(args)
    _check_outputs(args, resuming=work is not None and (work / RUN_FILE).is_file())
    settings = _settings(args)
    use_threads(args.threads)
    device = choose_device(args.device)
    keep_freed_memory()
    bundle = load_bundle(args.model, device=device, dtype=choose_dtype(args.dtype, device))
    settings = settings.resolve(bundle)
    if args.compile:
        bundle.dit.compile()
        bundle.autoencoder.decoder.compile()
    if bundle.is_demo and not args.quiet:
        sys.stderr.write(DEMO_NOTE + "\n")
    line = ProgressLine(quiet=args.quiet)
    with _Interrupt(line) as interrupt:
        summary = TalkingPortrait(bundle).generate(
            _portrait(args, settings),
            args.audio,
            _sinks(args, settings, bundle),
            settings,
            progress=interrupt.progress,
            work=WorkFolder(work) if work is not None else None,
        )
    _report(args, summary, work)
    return 130 if summary.interrupted else 0


def _work_folder(args: argparse.Namespace) -> Path | None:
    if not args.resume:
        return None
    if args.output is None:
        raise ConfigError("--resume needs --output, beside which its work folder lies")
    output = Path(args.output)
    return output.with_name(output.name + ".work")


def _check_outputs(args: argparse.Namespace, resuming: bool) -> None:
    """Everything about the results that can be wrong before the work starts. Raises: ConfigError, OutputError."""
    from .output import check_output

    if args.output is None and args.png is None:
        raise ConfigError("nowhere to write to; add -o out.mp4 or --png DIR")
    if args.output is not None:
        output = check_output(args.output, overwrite=args.overwrite or resuming)
        if output.suffix.lower() != ".mp4":
            raise ConfigError(f"{output}: the name of the video must end in .mp4")
    if args.contact_sheet is not None:
        check_output(args.contact_sheet, overwrite=args.overwrite or resuming)
    if args.png is not None:
        folder = Path(args.png)
        if not folder.absolute().parent.is_dir():
            raise OutputError(f"{folder}: folder {folder.parent} does not exist; create it or choose another")
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file; --png needs a folder")
        if folder.is_dir() and any(folder.glob("*.png")) and not (args.overwrite or resuming):
            raise OutputError(f"{folder}: holds PNG files already; add --overwrite or choose another folder")


def _settings(args: argparse.Namespace) -> GenerateSettings:
    from ..memory_bank import MemorySettings
    from ..pipeline import GenerateSettings
    from ..sampling.solvers import get_solver

    if args.solver is not None:
        get_solver(args.solver)
    return GenerateSettings(
        steps=args.steps,
        solver=args.solver,
        schedule=args.schedule,
        shift=args.shift,
        seed=args.seed,
        fps=args.fps,
        cfg_audio=args.cfg_audio,
        cfg_portrait=args.cfg_portrait,
        size=_size(args.size),
        memory=MemorySettings(noise_sigma=args.memory_noise) if args.memory_noise is not None else None,
        match_statistics=args.match_statistics,
    )


def _size(text: str | None) -> tuple[int, int] | None:
    """ "512" or "384x512" (width x height) -> (height, width)."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text)
    if match is None:
        raise ConfigError(f"size {text!r} must be a number of pixels such as 256, or WIDTHxHEIGHT")
    width = int(match[1])
    return int(match[2] or width), width


def _portrait(args: argparse.Namespace, settings: GenerateSettings) -> Portrait:
    """The picture's path, or with --crop-face the part around its largest face at the size of the video."""
    if not args.crop_face:
        return Path(args.portrait)
    from ..portrait.crop import CropTransform
    from ..portrait.detect import KorniaFaceDetector, find_face
    from ..portrait.image import load_portrait

    assert settings.size is not None  # they are resolved
    image = load_portrait(args.portrait)
    face = find_face(image, KorniaFaceDetector())
    return CropTransform.around(face, (image.shape[0], image.shape[1]), settings.size).apply(image)


def _sinks(args: argparse.Namespace, settings: GenerateSettings, bundle: ModelBundle) -> FrameSink:
    from ..video.contact_sheet import ContactSheet
    from ..video.tee import Tee
    from ..video.threaded import ThreadedSink
    from ..video.writer import PngSequenceWriter, VideoWriter

    assert settings.fps is not None and settings.size is not None  # they are resolved
    sinks: list[FrameSink] = []
    try:
        if args.output is not None:
            sinks.append(
                VideoWriter(
                    args.output,
                    settings.fps,
                    settings.size,
                    audio=args.audio,
                    metadata=_metadata(settings, bundle),
                )
            )
        if args.png is not None:
            sinks.append(PngSequenceWriter(args.png, metadata=_metadata(settings, bundle)))
        if args.contact_sheet is not None:
            sinks.append(ContactSheet(args.contact_sheet))
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return ThreadedSink(Tee(sinks))


def _metadata(settings: GenerateSettings, bundle: ModelBundle) -> dict[str, Any]:
    """Says in the file that it is generated, by what, and how to repeat it."""
    from ..video.writer import AI_MARKER

    details = {"version": __version__, "models_sha256": bundle.hashes(), "settings": settings.to_dict()}
    return {"comment": f"{AI_MARKER}, made by LetsTalk {__version__}", "letstalk": details}


class _Interrupt:
    """Ctrl-C: the first one during generation waits for the end of a step; any other acts at once."""

    def __init__(self, line: Any) -> None:
        self.line, self.asked, self.running = line, False, False
        self._previous: Any = None

    def __enter__(self) -> _Interrupt:
        try:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        except ValueError:  # not in the main thread
            self._previous = None
        return self

    def __exit__(self, *_: object) -> None:
        self.line.end()
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.running:
            raise KeyboardInterrupt
        self.asked = True

    def progress(self, now: Progress) -> None:
        self.running = True
        if self.asked:
            self.running = False
            raise KeyboardInterrupt
        self.line(now)


def _report(args: argparse.Namespace, summary: Summary, work: Path | None) -> None:
    if not args.quiet:
        kept = f"; the same command continues from {work}" if work is not None else ""
        state = (
            f"stopped after {summary.frames} of {summary.total_frames} frames{kept}: "
            if summary.interrupted
            else ""
        )
        wrote = ", ".join(str(p) for p in (args.output, args.png, args.contact_sheet) if p is not None)
        sys.stderr.write(
            f"{state}wrote {wrote}: {summary.frames} frames, {summary.seconds:.2f} s at {summary.fps:g} fps,"
            f" {summary.width}x{summary.height}, in {summary.elapsed_seconds:.1f} s\n"
        )
    if args.json:
        outputs = {"output": args.output, "png": args.png, "contact_sheet": args.contact_sheet}
        sys.stdout.write(json.dumps({**outputs, **summary.to_dict()}, indent=2) + "\n")
