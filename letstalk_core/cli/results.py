"""What `letstalk generate` writes: checked before the work, open while it goes on, finished after it."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import ConfigError, OutputError
from ..generate.drift_plot import drift_plot
from ..generate.retake import retake_details
from ..generate.settings import GenerateSettings, Summary
from ..generate.work_folder import WorkFolder
from ..media.audio.decode import AudioSource
from ..media.portrait.image import save_image
from ..media.portrait.scene import PastingSink, Scene
from ..media.video.contact_sheet import ContactSheet, sheet_frames
from ..media.video.container import AI_MARKER
from ..media.video.content_credentials import ContentSigner
from ..media.video.segments import SegmentedVideo, segment_clips
from ..media.video.tee import Tee
from ..media.video.threaded import ThreadedSink
from ..media.video.writer import PngSequenceWriter
from ..networks.load import ModelBundle
from ..protocols import FrameSink
from .output import check_apart, check_file_name, check_folder, check_output

FRAME_NAME = re.compile(r"frame_\d+\.png", re.IGNORECASE)


def check_outputs(args: argparse.Namespace, folder: Path | None, resuming: bool) -> None:
    """Everything about the results that can be wrong before the work starts. `folder`: the work folder.

    Raises: ConfigError, OutputError.
    """
    if args.output is None and args.png is None:
        raise ConfigError("nowhere to write to; add -o out.mp4 or --png DIR")
    names = {"the video": args.output, "the contact sheet": args.contact_sheet, "the drift plot": args.drift_plot}
    outputs = {name: check_file_name(path) for name, path in names.items() if path is not None}
    given = {"the portrait": args.portrait, "the recording": args.audio}
    given |= {
        "the motion": args.motion,
        "the vocals": args.vocals,
        "the certificate": args.sign,
        "the key": args.sign_key,
    }
    inputs = {name: Path(path) for name, path in given.items() if path is not None}
    if args.model is not None:
        inputs |= {f"{path.name} of the model": path for path in Path(args.model).glob("*.safetensors")}
    png = check_folder(args.png) if args.png is not None else None
    check_apart({**outputs, **({"the folder of frames": png} if png is not None else {})}, inputs)
    _check_folders({**outputs, **inputs}, png, folder)
    mine = set(WorkFolder(folder).outputs) if resuming and folder is not None else set()  # which it may replace
    for name, path in outputs.items():
        check_output(path, overwrite=args.overwrite or path.absolute() in mine)
        if name == "the video" and path.suffix.lower() != ".mp4":
            raise ConfigError(f"{path}: the name of the video must end in .mp4")
    if folder is not None:
        _check_work(folder)
    replace = args.overwrite or (png is not None and png.absolute() in mine)
    if png is not None and png.is_dir() and any(png.glob("*.png")) and not replace:
        raise OutputError(f"{png}: holds PNG files already; add --overwrite or choose another folder")


def _check_folders(files: dict[str, Path], png: Path | None, work: Path | None) -> None:
    """Nothing lies where numbered frames or the work folder would be written over it. Raises: OutputError."""
    frames, folder = png and png.resolve(), work and work.resolve()
    if frames is not None and folder is not None and (frames == folder or folder in frames.parents):
        raise OutputError(f"{png}: is in the work folder {work}; choose another folder for --png")
    for name, path in files.items():
        place = path.resolve()
        if folder is not None and folder in place.parents:
            raise OutputError(
                f"{path}: {name} is in the work folder {work}, which is deleted; choose another place"
            )
        if frames is not None and place.parent == frames and FRAME_NAME.fullmatch(place.name):
            raise OutputError(f"{path}: {name} has the name of a frame in the folder of --png; choose another")


def _check_work(folder: Path) -> None:
    """The work folder can be made, and its files have names that fit. Raises: OutputError."""
    check_file_name(folder)
    check_file_name(folder / "bank-000000.safetensors")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError(f"{folder}: is needed as work folder, but is a file or a link; move it away")
    check_output(folder / "lock", overwrite=True)


def make_sinks(
    args: argparse.Namespace,
    settings: GenerateSettings,
    bundle: ModelBundle,
    video: SegmentedVideo | None,
    work: WorkFolder | None,
    scene: Scene | None,
) -> FrameSink:
    """The video and all else that the frames go to; with a `scene`, pictures of its crop become whole ones."""
    sinks: list[FrameSink] = [video] if video is not None else []
    try:
        pictures: list[FrameSink] = []
        if args.png is not None:
            pictures.append(PngSequenceWriter(args.png, metadata=lambda: _metadata(settings, bundle, work)))
        if args.contact_sheet is not None and args.output is None:
            pictures.append(ContactSheet(args.contact_sheet))
        sinks += [PastingSink(sink, scene) for sink in pictures] if scene is not None else pictures
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return ThreadedSink(Tee(sinks))


def make_video(
    args: argparse.Namespace,
    settings: GenerateSettings,
    bundle: ModelBundle,
    folder: Path,
    sound: AudioSource,
    signer: ContentSigner | None = None,
    scene: Scene | None = None,
) -> tuple[SegmentedVideo, WorkFolder]:
    """The video, signed before it has its name if there is a `signer`, and the work folder that makes it safe.

    With a `scene` the video has its size and shows all of it.
    """
    assert settings.fps is not None and settings.output_size is not None  # they are resolved
    clip_frames = bundle.dit.config.clip_frames

    def seal(path: Path) -> None:
        if signer is not None:
            signer.sign(path, _details(settings, bundle, work), Path(args.output).name)

    video = SegmentedVideo(
        args.output,
        settings.fps,
        settings.output_size if scene is None else scene.size,
        folder,
        clip_frames * segment_clips(settings.fps, clip_frames),
        audio=sound if args.part is None else None,
        metadata=lambda: _metadata(settings, bundle, work),
        seal=seal,
        paste=scene,
    )
    whole = {} if scene is None else {"picture": scene.fingerprint}
    keep = args.keep_work or args.retake is not None
    work: WorkFolder = WorkFolder(
        folder,
        keep=keep,
        also={**video.settings, **whole, "compile": args.compile},
        restart=args.restart,
        keep_stopped=args.resume or args.keep_work,
        outputs=[Path(p) for p in (args.output, args.png, args.contact_sheet, args.drift_plot) if p is not None],
    )
    return video, work


def make_signer(args: argparse.Namespace) -> ContentSigner | None:
    """Made before the work starts, so that a certificate which cannot sign is told at once."""
    if args.sign is None and args.sign_key is None:
        return None
    if args.sign is None or args.sign_key is None or args.output is None:
        raise ConfigError("signing needs --sign CERT, --sign-key KEY and --output")
    return ContentSigner(Path(args.sign), Path(args.sign_key))


def draw_sheet(args: argparse.Namespace) -> None:
    """The contact sheet of a finished video, made from its file: so a run continues as it does without one."""
    if args.contact_sheet is not None and args.output is not None:
        sheet = ContactSheet(args.contact_sheet)
        for frame in sheet_frames(Path(args.output), sheet.count):
            sheet.write(frame[None])
        sheet.close()


def draw_drift(args: argparse.Namespace, summary: Summary) -> None:
    """The plot, if it is asked for."""
    if args.drift_plot is not None and summary.drift.scores:
        save_image(args.drift_plot, drift_plot(summary.drift, summary.drift_level))


def _details(settings: GenerateSettings, bundle: ModelBundle, work: WorkFolder | None) -> dict[str, Any]:
    details = {"version": __version__, "models_sha256": bundle.hashes(), "settings": settings.to_dict()}
    details |= {"presenter": bundle.presenter} if bundle.presenter else {}
    takes = retake_details(work.takes) if work is not None else []
    return {**details, "retakes": takes} if takes else details


def _metadata(settings: GenerateSettings, bundle: ModelBundle, work: WorkFolder | None) -> dict[str, Any]:
    """Says in the file that it is generated, by what, and how to repeat it."""
    comment = f"{AI_MARKER}, made by LetsTalk {__version__}"
    return {"comment": comment, "letstalk": _details(settings, bundle, work)}
