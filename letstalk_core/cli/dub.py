"""`letstalk dub VIDEO AUDIO -o out.mp4`: a filmed person says another recording."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import ConfigError
from .generate import DEMO_NOTE, Interrupt, same_threads
from .options import add_machine, add_results, scale
from .output import check_apart, check_file_name, check_output, check_temporary_folder, say, write_out

__all__ = ["add_parser", "run"]

SHOWN_EVERY = 250  # frames that are searched


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "dub",
        help="put other words into the mouth of a filmed person",
        description="Make VIDEO again with a mouth that speaks AUDIO: head, eyes and all else stay as filmed, and"
        " so do frames without a face or with one turned away. The result has the size of the video and plays"
        " AUDIO. Ctrl-C ends it with what is done; a killed run continues when the same command is given again."
        " Ask the person first.",
    )
    add = parser.add_argument
    add("video", help="film of a person, seen from the front")
    add("audio", help="speech: any sound or video file")
    add("-o", "--output", required=True, help="video to write, .mp4")
    add(
        "--length",
        choices=("cut", "loop", "error"),
        default="cut",
        help="where sound and video are not equally long: cut the longer one, loop the video back and forth under"
        " all of the sound, or stop with an error (default cut)",
    )
    add("--model", metavar="DIR", help="model folder (default: the demo model)")
    add("--steps", type=int, help="sampling steps per clip (default: by model)")
    add("--seed", type=int, default=0, help="same seed, same video (default 0)")
    add("--fps", type=float, help="frames per second (default: what the model was trained at)")
    add(
        "--cfg-audio",
        type=scale,
        metavar="SCALE",
        help="audio guidance; 1 is none, 1.6:1.0 falls over the steps (default: by model)",
    )
    add("--no-puppet", action="store_true", help="mouths as the model makes them, not drawn from the film's face")
    add("--no-carry", action="store_true", help="plain mouths, without the detail of the filmed face")
    add_machine(parser)
    add("--resume", action="store_true", help="after Ctrl-C, too, keep OUTPUT.work, from which a run continues")
    add("--restart", action="store_true", help="delete what an unfinished run left in OUTPUT.work")
    add_results(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..generate.dubbing import Dubbing
    from ..generate.settings import GenerateSettings
    from ..generate.work_folder import RUN_FILE, WorkFolder
    from ..media.audio.decode import AudioSource
    from ..media.video.reader import read_video
    from ..media.video.segments import SegmentedVideo, segment_clips
    from ..media.video.writer import AI_MARKER
    from ..networks.load import load_bundle
    from ..sampling.guidance import as_scale
    from .hardware import choose_device, choose_dtype, keep_freed_memory, use_threads
    from .progress import ProgressLine

    output = check_file_name(args.output)
    folder = output.with_name(output.name + ".work")
    resuming = (folder / RUN_FILE).is_file() and not args.restart
    check_apart({"the video": output}, {"the film": Path(args.video), "the recording": Path(args.audio)})
    mine = {path.absolute() for path in WorkFolder(folder).outputs} if resuming else set()
    check_output(output, overwrite=args.overwrite or output.absolute() in mine)
    if output.suffix.lower() != ".mp4":
        raise ConfigError(f"{output}: the name of the video must end in .mp4")
    check_temporary_folder()
    use_threads(args.threads)
    if resuming:
        same_threads(args, folder)
    device = choose_device(args.device)
    keep_freed_memory()
    bundle = load_bundle(args.model, device=device, dtype=choose_dtype(args.dtype, device))
    cfg_audio = None if args.cfg_audio is None else as_scale(args.cfg_audio)
    settings = GenerateSettings(
        steps=args.steps,
        seed=args.seed,
        fps=args.fps,
        cfg_audio=cfg_audio,
        carry=not args.no_carry,
        puppet=not args.no_puppet,
    ).resolve(bundle)
    assert settings.fps is not None
    if bundle.is_demo and not args.quiet:
        say(DEMO_NOTE)
    if resuming and not args.quiet:
        say(f"note: continues from {folder}")
    first = next(iter(read_video(args.video, fps=settings.fps, max_frames=1)))
    sound = AudioSource(args.audio)
    sound.pin()
    clip_frames = bundle.dit.config.clip_frames
    details = {"version": __version__, "models_sha256": bundle.hashes(), "settings": settings.to_dict()}
    video = SegmentedVideo(
        output,
        settings.fps,
        (first.shape[0], first.shape[1]),
        folder,
        clip_frames * segment_clips(settings.fps, clip_frames),
        audio=sound,
        metadata={"comment": f"{AI_MARKER}, dubbed by LetsTalk {__version__}", "letstalk": details},
    )
    work = WorkFolder(
        folder, also=video.settings, restart=args.restart, keep_stopped=args.resume, outputs=[output]
    )
    line = ProgressLine(quiet=args.quiet)

    def followed(frames: int) -> None:
        if frames % SHOWN_EVERY == 0 and not args.quiet:
            say(f"followed the face through {frames} frames")

    with Interrupt(line) as interrupt:
        summary = Dubbing(bundle).dub(
            Path(args.video),
            sound,
            video,
            settings,
            length=args.length,
            progress=interrupt.progress,
            work=work,
            followed=followed,
        )
    if not args.quiet:
        kept = f"; the same command continues from {folder}" if args.resume else ""
        stopped = f"stopped after {summary.frames} of {summary.total_frames} frames{kept}: "
        say(
            f"{stopped if summary.interrupted else ''}wrote {output}: {summary.frames} frames,"
            f" {summary.seconds:.2f} s at {summary.fps:g} fps, {summary.width}x{summary.height}, in"
            f" {summary.elapsed_seconds:.1f} s"
        )
    if args.json:
        write_out(json.dumps({"output": args.output, **summary.to_dict()}, indent=2) + "\n")
    return 130 if summary.interrupted else 0
