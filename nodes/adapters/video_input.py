"""ComfyUI's VIDEO as a stream of frames, with its sound and with what its file says of itself."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from comfy_api.latest import InputImpl
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.media.av_input import open_media
from ...letstalk_core.media.video.writer import VideoWriter
from ...letstalk_core.pixels import from_bytes, to_bytes
from .folders import temp_folder
from .pictures import LazyFrames
from .video import encoder_choice

FINE = 8  # crf of frames that are encoded once more
# Tags that tell of the file, not of its content.
OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "creation_time"}


@dataclass(frozen=True)
class VideoSource:
    """A VIDEO as a stream: frames (h, w, 3), how many, how fast, where its sound is, and its tags.

    `count` is a guess where `counted` is False: many containers say how long they are, but not of what.
    """

    frames: Iterator[Tensor]
    count: int
    counted: bool
    fps: Fraction | float
    sound: Any
    tags: dict[str, str]


def open_video(video: Any) -> VideoSource:
    """Raises: ConfigError for what is no VIDEO, MediaError."""
    from ...letstalk_core.media.video.reader import probe, read_video

    if not hasattr(video, "get_components"):
        raise ConfigError(f"video: is a {type(video).__name__}; wire a VIDEO")
    if isinstance(video, InputImpl.VideoFromComponents):  # its frames are in memory already
        parts = video.get_components()
        sound = parts.audio and (parts.audio["waveform"][0], int(parts.audio["sample_rate"]))
        return VideoSource(
            iter(parts.images[..., :3]), len(parts.images), True, Fraction(parts.frame_rate), sound, {}
        )
    path = video_file(video)
    info = probe(path)
    with open_media(path) as container:
        tags = {key: value for key, value in container.metadata.items() if key.lower() not in OF_THE_FILE}
    timed = round((info.seconds or 0) * info.fps)
    return VideoSource(
        frames=read_video(path, info.fps),
        count=info.frames or timed,
        counted=info.frames is not None and info.frames == timed,  # else frames are left out or repeated
        fps=info.fps,
        sound=path if info.audio_streams else None,
        tags=tags,
    )


def video_file(video: Any) -> Path:
    """The file of a VIDEO, written to the temp folder if it has none of its own. Raises: ConfigError."""
    from ...letstalk_core.media.video.reader import probe

    if not hasattr(video, "get_stream_source"):
        raise ConfigError(f"video: is a {type(video).__name__}; wire a VIDEO")
    path = temp_folder() / f"letstalk_video_{os.getpid()}_{time.time_ns()}.mp4"
    if isinstance(video, InputImpl.VideoFromComponents):  # its frames are in memory already
        parts = video.get_components()
        size = (parts.images.shape[1], parts.images.shape[2])
        with VideoWriter(path, Fraction(parts.frame_rate), size, **encoder_choice(FINE)) as writer:
            for frame in parts.images[..., :3]:
                writer.write(to_bytes(frame[None]))
        return path
    source = video.get_stream_source()
    if isinstance(source, str) and abs((probe(source).seconds or 0) - video.get_duration()) < 0.1:
        return Path(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    video.save_to(str(path))  # in memory, or only a part of its file
    return path


def retimed_frames(video: Any, fps: float) -> Iterator[Tensor]:
    """Frames (h, w, 3) uint8 of a VIDEO at another rate. Raises: ConfigError, MediaError."""
    from ...letstalk_core.media.video.reader import read_video

    return read_video(video_file(video), fps=fps)


def lazy_frames(path: Path, count: int, size: tuple[int, int], first: int = 0) -> LazyFrames:
    """IMAGE of `count` frames of a file, of `size` (height, width), read when a node uses them."""
    from ...letstalk_core.media.video.reader import read_video

    height, width = size  # encoders add a row or a column to odd sizes

    def read() -> Iterator[Tensor]:
        frames = itertools.islice(read_video(path, fps=None), first, None)
        return (from_bytes(frame[:height, :width]) for frame in frames)

    return LazyFrames((count, height, width, 3), read)
