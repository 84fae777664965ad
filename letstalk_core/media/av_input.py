"""Opening and decoding media files with PyAV: the part that sound and video share."""

from __future__ import annotations

import functools
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DependencyError, MediaError

ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
MAX_CHANNELS = 64  # what FFmpeg mixes; it takes gigabytes for the matrix of more
RATES = (1000, 768_000)  # Hz; what claims another rate is damaged, and would be resampled to hours or to nothing
PLANES = 7  # PyAV looks for the end of the list of planes behind the eighth, where there is none
MAX_PIXELS = 8192 * 8192  # a frame; larger claims are damage or an attack

log = logging.getLogger(__name__)


def check_file(file: Path) -> None:
    """Raises: MediaError if this is not a file with something in it."""
    try:
        info = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(f"{file}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise MediaError(f"{file}: cannot be opened ({_reason(error)})") from None
    if not stat.S_ISREG(info.st_mode):
        raise MediaError(f"{file}: is not a file; give a file and not a folder")
    if info.st_size == 0:
        raise MediaError(f"{file}: is empty (0 bytes); get the file again")


def open_media(path: str | os.PathLike[str]) -> Any:
    """Open a local file for reading: PyAV's `InputContainer`. Raises: MediaError, DependencyError."""
    try:
        import av
    except ImportError as error:
        raise DependencyError(f"reading sound and video needs PyAV ({error}); pip install av") from None
    file = Path(path)
    check_file(file)
    try:
        # The prefix keeps names with colons from being taken for protocols; the lists keep playlists off the net.
        options = {"protocol_whitelist": "file,crypto,data", "format_whitelist": _formats()}
        return av.open(f"file:{file}", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{file}: not readable as sound or video ({_reason(error)}); is it the right file?"
        ) from None


@functools.lru_cache(maxsize=1)
def _formats() -> str:
    """Every container FFmpeg reads but those that name other files."""
    import av

    return ",".join(sorted(set(av.formats_available) - {"applehttp", "concat", "dash", "hls", "imf", "lavfi"}))


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def audio_stream(container: Any, path: Path, number: int = 0) -> Any:
    """An audio stream that can be decoded. Raises: MediaError."""
    streams = container.streams.audio
    if not streams:
        raise MediaError(f"{path}: has no audio stream; give a file with sound")
    if not 0 <= number < len(streams):
        raise MediaError(f"{path}: has {len(streams)} audio streams, number {number} was asked for")
    if streams[number].codec_context is None:
        raise MediaError(f"{path}: no decoder for its audio codec; convert the file to WAV")
    context = streams[number].codec_context
    check_form(path, context.sample_rate or RATES[1], context.channels)
    return streams[number]


def check_form(path: Path, rate: int, channels: int) -> None:
    """Raises: MediaError for sound that would take hours or gigabytes to resample."""
    if channels > MAX_CHANNELS:
        raise MediaError(
            f"{path}: claims {channels} channels, at most {MAX_CHANNELS} are read; export it as stereo"
        )
    if not RATES[0] <= rate <= RATES[1]:
        raise MediaError(
            f"{path}: claims {rate} samples a second, needs {RATES[0]} to {RATES[1]}; export the sound again"
        )


def video_stream(container: Any, path: Path) -> Any:
    """The first video stream that is not the cover of a song. Raises: MediaError."""
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams:
        raise MediaError(f"{path}: has no video stream; give a video file")
    context = streams[0].codec_context
    if context is None:
        raise MediaError(f"{path}: no decoder for its video codec; convert the file to MP4")
    if context.width * context.height > MAX_PIXELS:
        raise MediaError(f"{path}: frames of {context.width}x{context.height} pixels are too large; scale it down")
    return streams[0]


def _is_cover(stream: Any) -> bool:
    disposition = stream.disposition  # an integer or a flag, by version of PyAV
    return bool(int(getattr(disposition, "value", disposition)) & ATTACHED_PICTURE)


def start_seconds(stream: Any) -> float:
    """When a stream starts on its container's clock."""
    return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0


def decoded_frames(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Frames of a stream; packets that cannot be decoded are skipped, a damaged end of file ends the stream."""
    import av

    damaged, packets = 0, container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            log.warning("%s: reading stops early (%s)", path, _reason(error))
            break
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.error.EOFError:
            break
        except (av.error.FFmpegError, ValueError):
            damaged += 1
            continue
        yield from frames
    if damaged:
        log.warning("%s: %d damaged packets skipped", path, damaged)


def resampled_frames(frames: Iterator[Any], path: Path, rate: int, layout: str | None = None) -> Iterator[Any]:
    """Float32 frames at one rate, in one channel layout if it is given; planar up to 7 channels.

    Raises: MediaError.
    """
    import av

    resampler, shape = None, None
    for frame in frames:
        frame.pts = None  # sound without gaps: wrong timestamps in files are commoner than true gaps
        if shape != (frame.format.name, frame.layout.name, frame.sample_rate):
            check_form(path, frame.sample_rate, len(frame.layout.channels))
            if resampler is not None:  # the format changes within the file
                yield from resampler.resample(None)
            shape = (frame.format.name, frame.layout.name, frame.sample_rate)
            form = "fltp" if layout is not None or len(frame.layout.channels) <= PLANES else "flt"
            resampler = av.AudioResampler(format=form, layout=layout, rate=rate)
        assert resampler is not None
        try:
            resampled = resampler.resample(frame)
        except (av.error.FFmpegError, ValueError, MemoryError) as error:
            raise MediaError(f"{path}: its sound cannot be resampled ({error}); convert it to WAV") from None
        yield from resampled
    if resampler is not None:
        yield from resampler.resample(None)
