"""Frames into a video file with sound, or into numbered pictures, as a stream and in constant memory."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, DependencyError, OutputError
from ...files import FileLock, atomic_path, new_temporary, remove_leftovers, sync_to_disk
from .container import SUFFIXES, Metadata, as_output_error, check_video, import_av, open_output, video_tags
from .soundtrack import Soundtrack, SoundtrackSource

ENCODERS: dict[str, dict[str, str]] = {  # in order of preference
    "libx264": {"crf": "18", "preset": "veryfast"},
    "libopenh264": {"b": "8M"},
    "h264_videotoolbox": {"b": "8M"},
    "h264_mf": {"b": "8M"},
    "mpeg4": {"b": "8M"},
}
BT709, LIMITED, FULL = 1, 1, 2  # AVCOL_*_BT709 (also SWS_CS_ITU709), AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
FRAME = re.compile(r"frame_\d{6,}\.png")
MAX_SIDE = 16_384  # what H.264 allows

log = logging.getLogger(__name__)
S = TypeVar("S", bound="Sink")


def available_encoder() -> str:
    """The best video encoder of this installation. Raises: DependencyError."""
    av = import_av()
    for name in ENCODERS:
        if name in av.codecs_available:
            try:
                av.Codec(name, "w")
            except (av.error.FFmpegError, ValueError):
                continue
            return name
    raise DependencyError(f"this build of PyAV has none of {list(ENCODERS)}; pip install --upgrade av")


class Sink:
    """`with` for sinks: closed at the end, closed as partial on Ctrl-C, dropped on any other error."""

    def close(self, partial: bool = False) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: Any, __: TracebackType | None) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close(partial=kind is not None)
        else:
            self.abort()


def check_video_name(path: Path) -> None:
    """Raises: ConfigError for a name whose ending tells no format."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: the name of a video must end in {', '.join(sorted(SUFFIXES))}")


class VideoWriter(Sink):
    """A FrameSink that encodes H.264 (yuv420p, BT.709, limited range) with the original sound as AAC.

    `size` is (height, width); odd sizes repeat their last row or column. Sound is read again from its own file
    and ends with the video: cut, or followed by silence. Everything goes to a hidden file beside `path`, which
    takes its name in `close` and vanishes in `abort`. `metadata` values that are not text become JSON; that the
    video is AI-generated is always said.
    Raises: ConfigError for sizes, rates and names that cannot work, MediaError for unusable sound, OutputError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float | Fraction,
        size: tuple[int, int],
        audio: SoundtrackSource | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        encoder: str | None = None,
        encoder_options: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.fps = frame_rate(fps)
        self.size = frame_size(size)
        self.frames = 0
        self._container: Any = None
        self._sound: Soundtrack | None = None
        check_video_name(self.path)
        self.encoder = encoder or available_encoder()
        self._options = _steady(
            self.encoder, ENCODERS.get(self.encoder, {}) if encoder_options is None else encoder_options
        )
        self._temporary: Path | None = None
        try:
            self._open(audio, metadata or {})
        except BaseException as error:
            self.abort()
            raise as_output_error(error, self.path) from None

    def _open(self, audio: SoundtrackSource | None, metadata: Mapping[str, Any]) -> None:
        av = import_av()
        from av.video.reformatter import VideoReformatter

        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a folder; give the name of a file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = new_temporary(self.path)
        container = self._container = open_output(self._temporary, video_tags(metadata))
        try:
            stream: Any = container.add_stream(self.encoder, rate=self.fps, options=self._options)
        except (ValueError, av.error.FFmpegError) as error:
            raise ConfigError(f"encoder={self.encoder!r} is not in this build of PyAV; choose another") from error
        height, width = self.size
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self.fps
        context.gop_size = max(1, round(2 * self.fps))  # a key frame each 2 s keeps seeking quick
        context.color_range, context.colorspace = LIMITED, BT709
        context.color_primaries = context.color_trc = BT709
        self._stream, self._reformatter = stream, VideoReformatter()
        if audio is not None:
            self._sound = Soundtrack(audio, container)

    def write(self, frames: Tensor) -> None:
        """Append frames (t, h, w, 3) uint8. Raises: ConfigError for another shape or type, OutputError."""
        array = _pixels(frames, self.size)
        if self._container is None:
            raise OutputError(f"{self.path}: is closed; make a new writer")
        try:
            for image in array:
                self._container.mux(self._stream.encode(self._frame(image)))
                self.frames += 1
                if self._sound is not None:
                    self._sound.write_until(self.frames / self.fps)
        except Exception as error:
            self.abort()
            raise as_output_error(error, self.path) from None

    def _frame(self, image: Any) -> Any:
        import av

        height, width = self.size
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        # Tags alone change nothing: the matrix of the conversion must be BT.709 too (FFmpeg's default is BT.601).
        frame = self._reformatter.reformat(
            frame, format="yuv420p", dst_colorspace=BT709, src_color_range=FULL, dst_color_range=LIMITED
        )
        frame.color_range, frame.colorspace = LIMITED, BT709
        frame.pts, frame.time_base = self.frames, 1 / self.fps
        return frame

    def close(self, partial: bool = False) -> None:
        """Finish the file and give it its name; without any frame `partial` drops it. Raises: OutputError."""
        if self._container is None:
            return
        if self.frames == 0:
            self.abort()
            if partial:
                return
            raise OutputError(f"{self.path}: no frame was written")
        try:
            self._container.mux(self._stream.encode(None))
            if self._sound is not None:
                self._sound.finish()
            container, self._container = self._container, None
            container.close()
            assert self._temporary is not None
            self._finished(self._temporary)
            check_video(self._temporary, self.frames)
            sync_to_disk(self._temporary)
            self._temporary.replace(self.path)
            self._temporary = None
            sync_to_disk(self.path.parent)
        except BaseException as error:
            self.abort()
            raise as_output_error(error, self.path) from None

    def _finished(self, temporary: Path) -> None:
        """For subclasses that add to the complete file before it has its name."""

    def abort(self) -> None:
        """Drop what was written."""
        container, self._container = self._container, None
        if self._sound is not None:
            self._sound.close()
        try:
            if container is not None:
                container.close()
        except Exception as error:  # the file is dropped anyway
            log.debug("%s: %s while dropping it", self.path, error)
        finally:
            temporary, self._temporary = self._temporary, None
            try:
                if temporary is not None:
                    temporary.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s: could not be deleted (%s)", temporary, error)


def _steady(encoder: str, options: Mapping[str, str]) -> dict[str, str]:
    """Options with which the same frames always give the same file.

    With AVX-512 the macroblock tree of x264 gives other quantisers from run to run, mostly for smooth pictures.
    """
    chosen = dict(options)
    if encoder == "libx264" and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        chosen["x264-params"] = ":".join(filter(None, (chosen.get("x264-params"), "asm=avx2")))
    return chosen


class PngSequenceWriter(Sink):
    """A FrameSink that writes frame_000000.png, frame_000001.png, …; each appears whole or not at all.

    Files of the same names are replaced. `abort` deletes what this writer wrote. `metadata` may be a function,
    which is asked when frames come. A folder has one writer at a time, which first deletes what killed ones left
    half-written. Raises: OutputError.
    """

    def __init__(self, folder: str | os.PathLike[str], start: int = 0, metadata: Metadata | None = None) -> None:
        self.folder = Path(folder)
        self.start, self.frames = start, 0
        self._metadata = metadata or {}
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"{self.folder}: is a file; give a folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made ({error.strerror}); check the path") from None
        self._lock = FileLock(self.folder / ".letstalk.lock")
        try:
            alone = self._lock.acquire()
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be used ({error.strerror}); choose another folder") from None
        if not alone:
            raise OutputError(
                f"{self.folder}: process {self._lock.holder()} writes frames to it; choose another folder"
            )
        remove_leftovers(self.folder, lambda name: FRAME.fullmatch(name) is not None)

    def file(self, index: int) -> Path:
        return self.folder / f"frame_{index:06d}.png"

    def write(self, frames: Tensor) -> None:
        """Append frames (t, h, w, 3) uint8, each as one file."""
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        for key, value in video_tags(self._metadata).items():
            info.add_itxt(key, value)
        for image in _pixels(frames, None):
            with atomic_path(self.file(self.start + self.frames)) as temporary:
                Image.fromarray(image).save(temporary, format="PNG", compress_level=3, pnginfo=info)
            self.frames += 1

    def close(self, partial: bool = False) -> None:
        """Warn of frames that an earlier, longer run left behind."""
        stale = self.file(self.start + self.frames)
        if stale.exists():
            log.warning("%s: left from an earlier run, as may be later frames; delete them", stale)
        self._lock.release(delete=True)

    def abort(self) -> None:
        """Delete the files of this writer."""
        for index in range(self.start, self.start + self.frames):
            self.file(index).unlink(missing_ok=True)
        self.frames = 0
        self._lock.release(delete=True)


def frame_rate(fps: float | Fraction) -> Fraction:
    """The exact rate that a number such as 29.97 means. Raises: ConfigError."""
    if isinstance(fps, Fraction) and 0 < fps <= 1000:
        return fps
    fps = float(fps)
    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise ConfigError(f"fps={fps} must be above 0 and at most 1000")
    exact = Fraction(fps).limit_denominator(1001)
    television = Fraction(round(fps) * 1000, 1001)  # 29.97 is a name for 30000/1001
    return television if exact.denominator > 2 and abs(fps - float(television)) < 1e-3 else exact


def frame_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels. Raises: ConfigError for what H.264 cannot hold."""
    height, width = (int(n) for n in size)
    if min(height, width) < 16 or max(height, width) > MAX_SIDE:
        raise ConfigError(f"video of {width}x{height} pixels: sides must be from 16 to {MAX_SIDE}")
    return height, width


def _pixels(frames: Tensor, size: tuple[int, int] | None) -> Any:
    expected = f"(t, {size[0]}, {size[1]}, 3)" if size else "(t, h, w, 3)"
    if frames.ndim != 4 or frames.shape[-1] != 3 or (size is not None and tuple(frames.shape[1:3]) != size):
        raise ConfigError(f"frames have shape {list(frames.shape)}; needs {expected}")
    if str(frames.dtype) != "torch.uint8":
        raise ConfigError(f"frames are {frames.dtype}; needs torch.uint8 with values 0..255")
    return frames.detach().cpu().numpy()
