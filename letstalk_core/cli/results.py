"""What `letstalk generate` writes: checked before the work, open while it goes on, finished after it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ConfigError, OutputError
from .output import check_output

if TYPE_CHECKING:
    from ..generate.run import GenerateSettings, Summary
    from ..generate.work_folder import WorkFolder
    from ..media.video.content_credentials import ContentSigner
    from ..media.video.segments import SegmentedVideo
    from ..networks.load import ModelBundle
    from ..protocols import FrameSink

__all__ = ["check_outputs", "draw_drift", "make_signer", "make_sinks", "make_video"]


def check_outputs(args: argparse.Namespace, resuming: bool) -> None:
    """Everything about the results that can be wrong before the work starts. Raises: ConfigError, OutputError."""
    if args.output is None and args.png is None:
        raise ConfigError("nowhere to write to; add -o out.mp4 or --png DIR")
    if args.output is not None:
        output = check_output(args.output, overwrite=args.overwrite or resuming)
        if output.suffix.lower() != ".mp4":
            raise ConfigError(f"{output}: the name of the video must end in .mp4")
    for picture in (args.contact_sheet, args.drift_plot):
        if picture is not None:
            check_output(picture, overwrite=args.overwrite or resuming)
    if args.png is not None:
        folder = Path(args.png)
        if not folder.absolute().parent.is_dir():
            raise OutputError(f"{folder}: folder {folder.parent} does not exist; create it or choose another")
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file; --png needs a folder")
        if folder.is_dir() and any(folder.glob("*.png")) and not (args.overwrite or resuming):
            raise OutputError(f"{folder}: holds PNG files already; add --overwrite or choose another folder")


def make_sinks(
    args: argparse.Namespace,
    settings: GenerateSettings,
    bundle: ModelBundle,
    folder: Path | None,
    signer: ContentSigner | None = None,
) -> tuple[FrameSink, WorkFolder | None]:
    from ..media.video.contact_sheet import ContactSheet
    from ..media.video.tee import Tee
    from ..media.video.threaded import ThreadedSink
    from ..media.video.writer import PngSequenceWriter

    sinks: list[FrameSink] = []
    work = None
    try:
        if folder is not None:
            video, work = make_video(args, settings, bundle, folder, signer)
            sinks.append(video)
        if args.png is not None:
            sinks.append(PngSequenceWriter(args.png, metadata=lambda: _metadata(settings, bundle, work)))
        if args.contact_sheet is not None:
            sinks.append(ContactSheet(args.contact_sheet))
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return ThreadedSink(Tee(sinks)), work


def make_video(
    args: argparse.Namespace,
    settings: GenerateSettings,
    bundle: ModelBundle,
    folder: Path,
    signer: ContentSigner | None = None,
) -> tuple[SegmentedVideo, WorkFolder]:
    """The video, signed before it has its name if there is a `signer`, and the work folder that makes it safe."""
    from ..generate.work_folder import WorkFolder
    from ..media.video.segments import SegmentedVideo, segment_clips

    assert settings.fps is not None and settings.size is not None  # they are resolved
    clip_frames = bundle.dit.config.clip_frames

    def seal(path: Path) -> None:
        if signer is not None:
            signer.sign(path, _details(settings, bundle, work), Path(args.output).name)

    video = SegmentedVideo(
        args.output,
        settings.fps,
        settings.size,
        folder,
        clip_frames * segment_clips(settings.fps, clip_frames),
        audio=args.audio,
        metadata=lambda: _metadata(settings, bundle, work),
        seal=seal,
    )
    keep = args.keep_work or args.retake is not None
    work: WorkFolder = WorkFolder(
        folder,
        keep=keep,
        also={**video.settings, "compile": args.compile},
        restart=args.restart,
        keep_stopped=args.resume or args.keep_work,
    )
    return video, work


def make_signer(args: argparse.Namespace) -> ContentSigner | None:
    """Made before the work starts, so that a certificate which cannot sign is told at once."""
    if args.sign is None and args.sign_key is None:
        return None
    if args.sign is None or args.sign_key is None or args.output is None:
        raise ConfigError("signing needs --sign CERT, --sign-key KEY and --output")
    from ..media.video.content_credentials import ContentSigner

    return ContentSigner(Path(args.sign), Path(args.sign_key))


def draw_drift(args: argparse.Namespace, summary: Summary) -> None:
    """The plot, if it is asked for."""
    if args.drift_plot is not None and summary.drift.scores:
        from ..generate.drift_plot import drift_plot
        from ..media.portrait.image import save_image

        save_image(args.drift_plot, drift_plot(summary.drift, summary.drift_level))


def _details(settings: GenerateSettings, bundle: ModelBundle, work: WorkFolder | None) -> dict[str, Any]:
    from ..generate.retake import retake_details

    details = {"version": __version__, "models_sha256": bundle.hashes(), "settings": settings.to_dict()}
    takes = retake_details(work.takes) if work is not None else []
    return {**details, "retakes": takes} if takes else details


def _metadata(settings: GenerateSettings, bundle: ModelBundle, work: WorkFolder | None) -> dict[str, Any]:
    """Says in the file that it is generated, by what, and how to repeat it."""
    from ..media.video.writer import AI_MARKER

    comment = f"{AI_MARKER}, made by LetsTalk {__version__}"
    return {"comment": comment, "letstalk": _details(settings, bundle, work)}
