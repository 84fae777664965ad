"""The work of `letstalk generate`, step by step: options checked, models loaded, the face found, the video made.

Slow to import, as are the modules that only this one uses; commands import it when they run.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..errors import ConfigError
from ..generate.progress import Progress
from ..generate.settings import GenerateSettings, Summary
from ..generate.talking_portrait import Portrait, TalkingPortrait
from ..generate.work_folder import RUN_FILE, WorkFolder
from ..media.audio.decode import AudioSource
from ..networks.load import ModelBundle, load_bundle
from ..sampling.guidance import as_scale
from ..sampling.memory_bank import MemorySettings
from ..sampling.solvers import get_solver
from .hardware import choose_device, choose_dtype, keep_freed_memory, threads_of_run, use_threads
from .inputs import find_scene, motion_of, output_size, vocals_of
from .output import check_file_name, check_temporary_folder, say, write_out
from .progress import ProgressLine
from .results import check_outputs, draw_drift, draw_sheet, make_signer, make_sinks, make_video
from .size import choose_size, parse_size

DEMO_NOTE = (
    "note: using the bundled demo model, a small one for 256 x 256 pixels, which draws the teeth that a picture"
    " does not show; --model DIR uses another"
)


def load_models(args: argparse.Namespace) -> ModelBundle:
    """The models that the options ask for, where and as they ask for it. Raises: ConfigError, CheckpointError."""
    device = choose_device(args.device)
    keep_freed_memory()
    bundle = load_bundle(args.model, device=device, dtype=choose_dtype(args.dtype, device))
    if args.compile:
        bundle.dit.compile()
        bundle.autoencoder.decoder.compile()
    if bundle.is_demo:
        say(DEMO_NOTE, args.quiet)
    return bundle


def make(args: argparse.Namespace, load: Callable[[argparse.Namespace], ModelBundle] = load_models) -> Summary:
    """The video of one portrait and one recording, with everything else that is asked for.

    `load` gives the models, after all has been checked that needs none. Raises: LetsTalkError.
    """
    folder = _work_folder(args)
    resuming = folder is not None and (folder / RUN_FILE).is_file() and not args.restart
    check_outputs(args, folder, resuming)
    check_temporary_folder()
    settings, size = _settings(args), parse_size(args.size)
    signer = make_signer(args)
    use_threads(threads_of_run(args.threads))
    if resuming:
        same_threads(args, folder)
    bundle = load(args)
    settings = choose_size(settings, size, bundle).resolve(bundle)
    if resuming:
        say(f"note: continues from {folder}", args.quiet)
    scene = find_scene(args, settings)
    pastes = scene is not None and not scene.is_whole and not args.crop_face
    if settings.carry:
        settings = replace(settings, output_size=output_size(args, size, settings, scene, pastes))
        scene = scene.at(settings.output_size) if scene is not None and settings.output_size is not None else None
    portrait: Portrait = Path(args.portrait) if scene is None else scene.portrait
    pasted = scene if pastes else None
    sound = AudioSource(args.audio)
    sound.pin()  # before anything is read from it: what is encoded must be what the video plays
    heard = vocals_of(args, sound)
    motion = motion_of(args, settings, bundle)
    with Interrupt(ProgressLine(quiet=args.quiet)) as interrupt:
        video, work = None, None
        if folder is not None:
            video, work = make_video(args, settings, bundle, folder, sound, signer, pasted)
        if args.retake is not None:
            assert video is not None and work is not None
            summary = TalkingPortrait(bundle).retake(
                *(portrait, heard, video, work, _seconds(args.retake), args.retake_seed, settings),
                progress=interrupt.progress,
                motion=motion,
                references=args.reference or (),
            )
        else:
            sink = make_sinks(args, settings, bundle, video, work, pasted)
            summary = TalkingPortrait(bundle).generate(
                *(portrait, heard, sink, settings),
                progress=interrupt.progress,
                work=work,
                motion=motion,
                part=args.part,
                references=args.reference or (),
            )
    if pasted is not None:
        summary.height, summary.width = pasted.size
    draw_sheet(args)
    draw_drift(args, summary)
    _report(args, summary, folder if args.resume or args.keep_work else None)
    return summary


def _work_folder(args: argparse.Namespace) -> Path | None:
    if args.retake is not None:
        _seconds(args.retake)
        if args.png or args.contact_sheet or args.restart:
            raise ConfigError("--retake makes the video only; leave out --png, --contact-sheet and --restart")
    if args.output is None:
        for name in ("resume", "keep_work", "restart", "retake"):
            if getattr(args, name):
                raise ConfigError(f"--{name.replace('_', '-')} needs --output, beside which its work folder lies")
        return None
    output = check_file_name(args.output)
    return output.with_name(output.name + ".work")


def same_threads(args: argparse.Namespace, folder: Path | None) -> None:
    """Go on with as many threads as the run began with: with others its numbers are rounded in another order."""
    threads = WorkFolder(folder).threads if folder is not None else None
    if threads is None or threads == torch.get_num_threads():
        return
    use_threads(threads)
    say(f"note: uses {threads} CPU threads, as when this run began, for the same frames", args.quiet)


def model_settings(args: argparse.Namespace) -> GenerateSettings:
    """What generating and dubbing ask of a model alike."""
    return GenerateSettings(
        steps=args.steps,
        seed=args.seed,
        fps=args.fps,
        cfg_audio=None if args.cfg_audio is None else as_scale(args.cfg_audio),
        carry=not args.no_carry,
        puppet=not args.no_puppet,
    )


def _settings(args: argparse.Namespace) -> GenerateSettings:
    if args.solver is not None:
        get_solver(args.solver)
    return replace(
        model_settings(args),
        solver=args.solver,
        schedule=args.schedule,
        shift=args.shift,
        cfg_portrait=as_scale(args.cfg_portrait),
        memory=MemorySettings(noise_sigma=args.memory_noise) if args.memory_noise is not None else None,
        match_statistics=args.match_statistics,
        drift_level=args.drift_level,
        movement=args.movement,
        as_authors=args.as_authors,
    )


def _seconds(text: str) -> tuple[float, float]:
    """ "12-20.5" -> (12.0, 20.5)."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)-(\d+(?:\.\d*)?)", text.strip())
    if match is None:
        raise ConfigError(f"--retake {text!r}: needs two numbers of seconds, such as 12-20.5")
    return float(match[1]), float(match[2])


class Interrupt:
    """Ctrl-C: the first one during generation waits for the end of a step; any other acts at once."""

    def __init__(self, line: Any) -> None:
        self.line, self.asked, self.running = line, False, False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
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


def outcome_line(summary: Summary, wrote: str, work: Path | None) -> str:
    """What came of a run, for people. `wrote`: the results; `work`: the folder that a stopped run left."""
    state = ""
    if summary.interrupted:
        kept = f"; the same command continues from {work}" if work is not None else ""
        state = f"stopped after {summary.frames} of {summary.total_frames} frames{kept}: "
    if summary.retaken:
        first, last = (frame / summary.fps for frame in summary.retaken)
        state = f"made {first:.2f} to {last:.2f} s anew: "
    return (
        f"{state}wrote {wrote}: {summary.frames} frames, {summary.seconds:.2f} s at {summary.fps:g} fps,"
        f" {summary.width}x{summary.height}, in {summary.elapsed_seconds:.1f} s"
    )


def _report(args: argparse.Namespace, summary: Summary, work: Path | None) -> None:
    outputs = {name: getattr(args, name) for name in ("output", "png", "contact_sheet", "drift_plot")}
    say(outcome_line(summary, ", ".join(str(p) for p in outputs.values() if p is not None), work), args.quiet)
    if summary.drift_level > 0 and summary.drift.scores:
        found = summary.drift.to_dict()
        say(
            f"likeness to the portrait {found['mean']:.2f}, lowest {found['lowest']:.2f}; re-anchored after"
            f" {len(found['re_anchored'])} of {len(summary.drift.scores)} clips",
            args.quiet,
        )
    if args.json:
        write_out(json.dumps({**outputs, **summary.to_dict()}, indent=2) + "\n")
