"""Frames of any video file as a stream, at a wanted frame rate, upright and in true colours."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError, MediaError
from ..av_input import decoded_frames, open_media, video_stream

BT709, BT601 = 1, 5  # SWS_CS_ITU709, SWS_CS_ITU601
UNSPECIFIED, LIMITED, FULL = 2, 1, 2  # AVCOL_SPC_UNSPECIFIED, AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
MAX_GAP_SECONDS = 60.0  # between two frames; what claims more is damaged, and would be repeated for hours
# SWS_BILINEAR, ACCURATE_RND, FULL_CHR_H_INT, FULL_CHR_H_INP: swscale's fast path makes all colours a level darker.
EXACT = 0x2 | 0x40000 | 0x2000 | 0x4000
FCC, SMPTE240M, BT2020 = 4, 7, 9  # the same numbers as AVCOL_SPC_* and as SWS_CS_*


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a video says. `frames` and `seconds` are claims; None where there is none."""

    height: int
    width: int
    fps: float
    frames: int | None
    seconds: float | None
    audio_streams: int
    codec: str


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Read the header of a video. Raises: MediaError."""
    with open_media(path) as container:
        stream = video_stream(container, Path(path))
        seconds = float(stream.duration * stream.time_base) if stream.duration else None
        if seconds is None and container.duration:
            seconds = container.duration / 1_000_000
        return VideoInfo(
            height=stream.codec_context.height,
            width=stream.codec_context.width,
            fps=float(_fps(stream)),
            frames=stream.frames or None,
            seconds=seconds,
            audio_streams=len(container.streams.audio),
            codec=stream.codec_context.name,
        )


def read_video(
    path: str | os.PathLike[str], fps: float | None = 25.0, max_frames: int | None = None
) -> Iterator[Tensor]:
    """Yield frames (h, w, 3) uint8 RGB: output frame k is the one shown nearest to k / fps seconds.

    With `fps` None every frame comes once. Rotation marks of phones are applied. Memory does not depend on length.
    Raises: MediaError if the file is unusable or no frame can be decoded, ConfigError for a bad rate.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps={fps} must be a positive number of frames per second, or None to keep the file's")
    import av

    path = Path(path)
    with open_media(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        frames = _timed(decoded_frames(container, stream, path), 1 / _fps(stream))
        if fps is not None:
            frames = _retimed(frames, fps, float(1 / _fps(stream)))
        number, shape = 0, None
        for _, frame in frames:
            if max_frames is not None and number >= max_frames:
                return
            try:
                image = rgb_frame(frame)
            except (av.error.FFmpegError, ValueError, MemoryError) as error:
                raise MediaError(
                    f"{path}: a frame cannot be converted to RGB ({error}); convert it first"
                ) from None
            shape = shape or image.shape
            if image.shape != shape:
                raise MediaError(
                    f"{path}: changes its size from {list(shape)} to {list(image.shape)}; convert it first"
                )
            number += 1
            yield image
        if number == 0:
            raise MediaError(f"{path}: no frame could be decoded; convert the file to MP4")


def _fps(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return rate if 1 / MAX_GAP_SECONDS <= rate <= 1000 else Fraction(25)


def _timed(frames: Iterator[Any], interval: Fraction) -> Iterator[tuple[float, Any]]:
    """Frames with seconds since the first.

    Those without time, with backward ones, or with one far ahead follow their predecessor.
    """
    start, last = None, -float(interval)
    for frame in frames:
        time = frame.time
        if time is not None:
            start = time if start is None else start
            time = time - start
        if start is not None and time is not None and time > last + MAX_GAP_SECONDS:
            start += time - last - float(interval)  # those behind it move as well
            time = None
        if time is None or time <= last:
            time = last + float(interval)
        last = time
        yield time, frame


def _retimed(frames: Iterator[tuple[float, Any]], fps: float, interval: float) -> Iterator[tuple[float, Any]]:
    """Drop or repeat frames: output k gets the input whose time is nearest to k / fps."""
    previous, k = None, 0
    for time, frame in frames:
        if previous is not None:
            middle = (previous[0] + time) / 2
            while k / fps < middle - 1e-9:
                yield previous
                k += 1
        previous = (time, frame)
    if previous is not None:
        total = max(1, round((previous[0] + interval) * fps))
        while k < total:
            yield previous
            k += 1


def rgb_frame(frame: Any) -> Tensor:
    """(h, w, 3) uint8 with the frame's own matrix; unmarked video is BT.709 from 720 lines on, else BT.601."""
    space = int(frame.colorspace)
    if space not in (BT709, FCC, SMPTE240M, BT2020):
        space = BT709 if space == UNSPECIFIED and frame.height >= 720 else BT601
    full_range = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
    array = frame.reformat(
        format="rgb24",
        src_colorspace=space,
        # Means nothing for RGB, but older PyAV ignores the source's matrix where both are equal.
        dst_colorspace=BT709 if space == BT601 else BT601,
        src_color_range=FULL if full_range else LIMITED,
        dst_color_range=FULL,
        interpolation=EXACT,
    ).to_ndarray()
    image = torch.from_numpy(array)
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return image if turns == 0 else torch.rot90(image, turns, (0, 1)).contiguous()
