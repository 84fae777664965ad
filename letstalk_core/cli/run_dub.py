"""The work of `letstalk dub`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import __version__
from ..errors import ConfigError
from ..generate.dubbing import Dubbing
from ..generate.work_folder import RUN_FILE, WorkFolder
from ..media.audio.decode import AudioSource
from ..media.video.container import AI_MARKER
from ..media.video.reader import read_video
from ..media.video.segments import SegmentedVideo, segment_clips
from .hardware import threads_of_run, use_threads
from .output import check_apart, check_file_name, check_output, check_temporary_folder, say, write_out
from .progress import ProgressLine
from .run_generate import Interrupt, load_models, model_settings, outcome_line, same_threads

SHOWN_EVERY = 250  # frames that are searched


def run_dub(args: argparse.Namespace) -> int:
    """Dub one film; the exit code. Raises: LetsTalkError."""
    output = check_file_name(args.output)
    folder = output.with_name(output.name + ".work")
    resuming = (folder / RUN_FILE).is_file() and not args.restart
    check_apart({"the video": output}, {"the film": Path(args.video), "the recording": Path(args.audio)})
    mine = {path.absolute() for path in WorkFolder(folder).outputs} if resuming else set()
    check_output(output, overwrite=args.overwrite or output.absolute() in mine)
    if output.suffix.lower() != ".mp4":
        raise ConfigError(f"{output}: the name of the video must end in .mp4")
    check_temporary_folder()
    use_threads(threads_of_run(args.threads))
    if resuming:
        same_threads(args, folder)
    bundle = load_models(args)
    settings = model_settings(args).resolve(bundle)
    assert settings.fps is not None
    if resuming:
        say(f"note: continues from {folder}", args.quiet)
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

    def followed(frames: int) -> None:
        if frames % SHOWN_EVERY == 0:
            say(f"followed the face through {frames} frames", args.quiet)

    with Interrupt(ProgressLine(quiet=args.quiet)) as interrupt:
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
    say(outcome_line(summary, str(output), folder if args.resume else None), args.quiet)
    if args.json:
        write_out(json.dumps({"output": args.output, **summary.to_dict()}, indent=2) + "\n")
    return 130 if summary.interrupted else 0
