"""Clips kept as ordinary video files: read at any frame, written nearly without loss."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from letstalk_core.errors import MediaError, OutputError
from letstalk_core.files import atomic_path
from letstalk_core.media.audio.alignment import SAMPLE_RATE
from letstalk_core.media.av_input import open_media
from letstalk_core.media.video.reader import rgb_frame

BT709, LIMITED = 1, 1  # as FFmpeg numbers them


def count_video_frames(path: Path) -> int:
    """Frames of a video file. Raises: MediaError."""
    import av

    with open_media(path) as container:
        try:
            stream = container.streams.video[0]
            return int(stream.frames) or sum(1 for _ in container.decode(stream))
        except (av.error.FFmpegError, IndexError) as error:
            raise MediaError(f"{path}: cannot be read as a video ({error}); make the clip again") from None


def read_video_frames(path: Path, first: int, stop: int) -> Tensor:
    """Frames [first, stop) of a constant-rate video, decoded from the key frame before: (t, h, w, 3) uint8.

    Raises: MediaError.
    """
    import av

    wanted: list[Tensor] = []
    with open_media(path) as container:
        try:
            stream: Any = container.streams.video[0]
            rate, base = stream.average_rate, stream.time_base
            if rate is None or base is None:
                raise MediaError(f"{path}: has no frame rate; make the clip again")
            start = stream.start_time or 0
            if first:
                container.seek(start + int(first / rate / base), stream=stream)
            for frame in container.decode(stream):
                index = round(float(((frame.pts or 0) - start) * base * rate))
                if index >= stop:
                    break
                if index >= first:
                    wanted.append(rgb_frame(frame))
        except (av.error.FFmpegError, IndexError) as error:
            raise MediaError(f"{path}: cannot be read as a video ({error}); make the clip again") from None
    if not wanted:
        raise MediaError(f"{path}: has no frames {first} to {stop}; make the clip again")
    return torch.stack(wanted)


def write_video_clip(path: Path, images: Tensor, sound: Tensor, fps: int, crf: int = 14) -> None:
    """Write H.264 with lossless sound. Raises: OutputError.

    Shapes: images (t, h, w, 3) uint8, sound (samples,) at 16 kHz.
    """
    import av

    with atomic_path(path) as temporary:
        try:
            with av.open(str(temporary), "w", format="mp4") as container:
                video: Any = container.add_stream(
                    "libx264", rate=fps, options={"crf": str(crf), "preset": "medium"}
                )
                video.height, video.width, video.pix_fmt = images.shape[1], images.shape[2], "yuv420p"
                context = video.codec_context
                context.colorspace = context.color_primaries = context.color_trc = BT709
                context.color_range = LIMITED
                # ALAC rather than AAC: no loss, and no priming samples that would shift lips against sound
                audio: Any = container.add_stream("alac", rate=SAMPLE_RATE, layout="mono")
                for index, image in enumerate(images):
                    frame = av.VideoFrame.from_ndarray(image.numpy(), format="rgb24")
                    frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED)
                    frame.pts, frame.time_base = index, Fraction(1, fps)
                    container.mux(video.encode(frame))
                container.mux(video.encode(None))
                samples = (sound.clamp(-1, 1) * 32767).to(torch.int16)
                for start in range(0, len(samples), 4096):
                    block = av.AudioFrame.from_ndarray(samples[None, start : start + 4096].numpy(), "s16p", "mono")
                    block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
                    container.mux(audio.encode(block))
                container.mux(audio.encode(None))
        except av.error.FFmpegError as error:
            raise OutputError(
                f"{path}: cannot be written ({error}); check the folder and free disk space"
            ) from None
