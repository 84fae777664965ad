"""`letstalk prepare`: ordinary talking-head videos into a training folder."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from letstalk_core.protocols import FaceDetector


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "prepare",
        help="cut talking-head videos into clips to train on",
        description="Videos are brought to 25 frames/s and 16 kHz sound, cut into shots, cropped to the face and"
        " filtered; what is left out is counted. Use only videos that you may use, of people who agreed.",
    )
    add = parser.add_argument
    add("videos", nargs="+", help="video files, or folders of them")
    add("-o", "--output", required=True, metavar="DIR", help="training folder; made or added to")
    add("--size", type=int, default=256, help="side of the clips in pixels (default 256)")
    crop = parser.add_mutually_exclusive_group()
    crop.add_argument("--box", help="fixed crop x0,y0,x1,y1 in pixels instead of face detection")
    crop.add_argument("--no-detect", action="store_true", help="crop the middle of the picture")
    add("--min-seconds", type=float, default=1.2, help="shortest clip (default 1.2)")
    add("--max-seconds", type=float, default=10.0, help="longest clip (default 10)")
    add("--min-sharpness", type=float, default=8.0, help="blur filter; 0 switches it off (default 8)")
    add("--val-share", type=float, default=0.05, help="share of videos or time to validate on (default 0.05)")
    add(
        "--split",
        choices=("auto", "video", "time"),
        default="auto",
        help="validate on whole videos, or on the end of all of them (default auto: the end of a single video)",
    )
    add(
        "--format",
        choices=("safetensors", "mp4"),
        default="safetensors",
        help="of the clips: safetensors gives any frame at once, mp4 takes a fiftieth of the space (default"
        " safetensors)",
    )
    add(
        "--no-motion",
        action="store_true",
        help="do not read how head, lids, gaze and brows move, which models conditioned on motion need",
    )
    add("--autoencoder", metavar="FILE", help="with --audio-encoder: encode the clips as well")
    add("--audio-encoder", metavar="FILE", help="see --autoencoder")
    add("--detector-weights", metavar="FILE", help="YuNet weights, to find faces with kornia instead")
    add("--device", default="cpu", help="where faces are detected (default cpu)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from letstalk_core.errors import ConfigError

    from ..data.prepare import FilmReader, prepare_videos
    from ..data.shots import PrepareSettings

    if bool(args.autoencoder) != bool(args.audio_encoder):
        raise ConfigError("--autoencoder and --audio-encoder go together; give both or neither")
    settings = PrepareSettings(
        size=args.size,
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
        min_sharpness=args.min_sharpness,
        box=_box(args.box),
        video_format=args.format,
        val_share=args.val_share,
        split=args.split,
    )
    detector: FaceDetector | None = None
    if settings.box is None and not args.no_detect:
        from letstalk_core.media.portrait.detect import KorniaFaceDetector
        from letstalk_core.media.portrait.find import default_finder

        weights = args.detector_weights
        detector = default_finder() if weights is None else KorniaFaceDetector(weights, device=args.device)
    read = None if args.no_motion or args.format == "mp4" else FilmReader()
    report = prepare_videos(find_videos(args.videos), args.output, settings, detector, read)
    left_out = ", ".join(f"{count} {reason}" for reason, count in report.reasons.most_common()) or "nothing"
    seconds = report.frames / 25
    sys.stderr.write(f"{report.videos} videos: {report.clips} clips, {seconds:.1f} s; left out: {left_out}\n")
    if args.autoencoder and report.clips:
        from .encode import run as encode

        options = {"noisy_copies": True, "batch": 8, "threads": None, "first": 0, "stride": 1, "device": "auto"}
        return encode(argparse.Namespace(folder=args.output, **{**vars(args), **options}))
    return 0


def _box(text: str | None) -> tuple[int, int, int, int] | None:
    from letstalk_core.errors import ConfigError

    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (int(v) for v in text.split(","))
    except ValueError:
        raise ConfigError(f"--box {text}: needs four whole numbers x0,y0,x1,y1") from None
    return x0, y0, x1, y1


def find_videos(names: list[str]) -> list[str]:
    """Files, and the videos of folders. Raises: ConfigError if there are none."""
    from pathlib import Path

    from letstalk_core.errors import ConfigError

    suffixes = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv"}
    files: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            files += sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in suffixes)
        else:
            files.append(name)
    if not files:
        raise ConfigError(f"{', '.join(names)}: no video files found")
    return files
