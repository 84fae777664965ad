"""A video in pieces that are safe once they are finished, joined without loss at the end.

Pieces lie in a folder that outlives the process: `video-000000.mp4`, each whole on the disk when it has its name.
Beside them `so_far.mp4`, with sound, plays at any moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import ConfigError, OutputError
from ...files import file_sha256, new_temporary, remove_leftovers_of, sync_to_disk
from ..audio.decode import AudioSource
from .container import Metadata, as_output_error, check_video, import_av, video_tags
from .join import Joiner
from .soundtrack import SoundtrackSource, check_sound
from .writer import ENCODERS, Sink, VideoWriter, available_encoder, check_video_name, frame_rate, frame_size

SO_FAR = "so_far.mp4"
PASTED = 4  # frames pasted at once: whole pictures may be large
BOX_BYTES = 4 + 4 + 8 + 32
BOX = BOX_BYTES.to_bytes(4, "big") + b"freesha256: "  # "free" is MP4's name of a box without meaning; then a hash
SEGMENT_SECONDS = 2.0  # each begins with a key frame, as often as in other videos

log = logging.getLogger(__name__)


def segment_clips(fps: float, clip_frames: int) -> int:
    """Clips in a segment: as many as fit into two seconds."""
    return max(1, int(SEGMENT_SECONDS * fps / clip_frames))


def segment_path(folder: Path, index: int) -> Path:
    """Where a segment lies."""
    return folder / f"video-{index:06d}.mp4"


class SegmentedVideo(Sink):
    """A ResumableSink that makes the same kind of file as VideoWriter, from segments in `folder`.

    Frames of earlier runs that finished segments hold are in `held`; `write` goes on from there, or from where
    `resume_at` says. `close` joins the segments, the sound and the metadata to `path`, and leaves the folder to
    its owner. Encoding is the same for every number of processor cores, so that a continued video is the one that
    an unbroken run makes.
    `segment_frames`: frames of each segment but the last. `frames`: of the whole video, if they are known; the
    last segment is then finished with them and not in `close`. `metadata` may be a function, which is asked when
    the file is joined. `seal` gets the joined file before it has its name, and may change it, such as sign it.
    `paste` makes the video's frames, of its `size`, out of those that are written.
    Other arguments and errors as for VideoWriter.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float | Fraction,
        size: tuple[int, int],
        folder: Path,
        segment_frames: int,
        audio: SoundtrackSource | None = None,
        metadata: Metadata | None = None,
        *,
        encoder: str | None = None,
        encoder_options: Mapping[str, str] | None = None,
        frames: int | None = None,
        seal: Callable[[Path], None] | None = None,
        paste: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._paste = paste
        self.path, self.folder, self.segment_frames = Path(path), folder, segment_frames
        self.frames, self._seal = frames, seal
        self.fps, self.size = frame_rate(fps), frame_size(size)
        check_video_name(self.path)
        if segment_frames < 1:
            raise ConfigError(f"segment_frames={segment_frames} must be at least 1")
        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a folder; give the name of a file")
        self.encoder = encoder or available_encoder()
        self._options = _options(self.encoder, encoder_options)
        self._audio = audio
        if audio is not None:
            check_sound(audio)
        self._metadata = metadata or {}
        self._held: int | None = None
        self._next = 0  # frame that comes next
        self._writer: VideoWriter | None = None
        self._live: Joiner | None = None
        self._hidden: Path | None = None
        self._closed = False

    @property
    def settings(self) -> dict[str, Any]:
        """What segments of one video must have in common."""
        library = ".".join(map(str, import_av().library_versions.get("libavcodec", ())))
        return {
            "encoder": f"{self.encoder}, libavcodec {library}",
            "encoder_options": self._options,
            "segment_frames": self.segment_frames,
        }

    @property
    def held(self) -> int:
        """Frames in finished segments, from the first on without a gap; counted at the first call."""
        if self._held is None:
            self._held = 0
            while (found := _frames(segment_path(self.folder, self._held // self.segment_frames))) > 0:
                self._held += found
                if found != self.segment_frames:
                    break
            self._next = self._held
        return self._held

    def resume_at(self, frame: int) -> None:
        """The next frame written is this one: `held`, or the first of an earlier segment."""
        if frame > self.held or (frame < self.held and frame % self.segment_frames):
            raise ConfigError(f"{self.folder}: holds {self.held} frames; cannot go on at frame {frame}")
        self._next = frame

    def write(self, frames: Tensor) -> None:
        """Append frames (t, h, w, 3) uint8. Raises: ConfigError for another shape or type, OutputError."""
        if self._closed:
            raise OutputError(f"{self.path}: is closed; make a new writer")
        held = self.held
        if len(frames) and self._next == held and held % self.segment_frames:  # it ended here once
            raise ConfigError(f"{self.folder}: holds a whole video of {held} frames")
        try:
            while len(frames):
                if self._writer is None:
                    index = self._next // self.segment_frames
                    self._live = self._live or self._so_far(index)
                    self._writer = self._encoder(segment_path(self.folder, index))
                count = min(len(frames), self.segment_frames - self._writer.frames)
                self._put(self._writer, frames[:count])
                self._next += count
                frames = frames[count:]
                if self._writer.frames == self.segment_frames or self._next == self.frames:
                    self._finish()
        except Exception as error:
            self.abort()
            raise as_output_error(error, self.path) from None

    def _encoder(self, path: Path) -> VideoWriter:
        return _SegmentWriter(path, self.fps, self.size, encoder=self.encoder, encoder_options=self._options)

    def write_segment(self, path: Path, frames: Tensor) -> None:
        """A segment like the others, of frames (t, h, w, 3) uint8, somewhere else. Raises: OutputError."""
        with self._encoder(path) as writer:
            self._put(writer, frames)

    def _put(self, writer: VideoWriter, frames: Tensor) -> None:
        for part in frames.split(PASTED) if self._paste is not None else [frames]:
            writer.write(part if self._paste is None else self._paste(part))

    def join(self, frames: int) -> None:
        """The first `frames` frames, whole segments, as the final file. Raises: OutputError, MediaError."""
        pieces = _whole_segments(self.folder)
        join_videos(pieces, self.path, self.fps, frames, self._audio, video_tags(self._metadata), self._seal)

    def _so_far(self, segments: int) -> Joiner:
        """The file that plays while the run goes on; an earlier run's stays until the new one is as long."""
        path = self.folder / SO_FAR
        if sys.platform != "win32":  # which cannot rename open files
            self._hidden = new_temporary(path)
        else:
            path.unlink(missing_ok=True)
        live = Joiner(self._hidden or path, self.fps, self._audio, video_tags(self._metadata), live=True)
        for index in range(segments):
            live.add(segment_path(self.folder, index))
        if segments:
            self._show()
        return live

    def _show(self) -> None:
        """Give the file so far its name, once there is something in it to play."""
        if self._hidden is not None:
            self._hidden.replace(self.folder / SO_FAR)
            self._hidden = None

    def _finish(self) -> None:
        """Give the current segment its name."""
        assert self._writer is not None and self._live is not None
        writer, self._writer = self._writer, None
        writer.close()
        self._held = max(self.held, self._next)
        self._live.add(writer.path)
        self._show()

    def close(self, partial: bool = False) -> None:
        """Join all segments to the final file. `partial`: a segment that is not full is in it, but not kept."""
        if self._closed:
            return
        tail = self._writer.path if self._writer is not None and partial else None
        total = self._next
        if self.held == 0 and self._next == 0:
            self.abort()
            if partial:
                return
            raise OutputError(f"{self.path}: no frame was written")
        try:
            if self._writer is not None:
                self._finish()
            if self._live is not None:
                self._live.close()
            self._closed = True
            self.join(total)
        except BaseException as error:
            self.abort()
            raise as_output_error(error, self.path) from None
        finally:
            if tail is not None:
                tail.unlink(missing_ok=True)

    def abort(self) -> None:
        """Drop the segment that is not finished; the others, and the file so far, stay in the folder."""
        self._closed = True
        if self._writer is not None:
            self._writer.abort()
        if self._live is not None:
            self._live.abort()
        if self._hidden is not None:
            with contextlib.suppress(OSError):
                self._hidden.unlink(missing_ok=True)


def join_videos(
    pieces: Iterable[Path],
    path: Path,
    fps: Fraction,
    frames: int,
    audio: SoundtrackSource | None,
    tags: Mapping[str, str],
    seal: Callable[[Path], None] | None = None,
) -> None:
    """The first pieces, `frames` frames in all, and the sound as one file, which `seal` may change before it has
    its name. Raises: OutputError, MediaError, and what `seal` raises."""
    joiner: Joiner | None = None
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers_of(path)  # the segments are locked for one run, and so is what becomes of them
        temporary = new_temporary(path)
        joiner = Joiner(temporary, fps, audio, tags)
        for piece in pieces:
            joiner.add(piece)
            if joiner.frames >= frames:
                break
        joiner.close()
        if isinstance(audio, AudioSource):
            audio.check_unchanged()
        if seal is not None:
            seal(temporary)
        check_video(temporary, frames)
        sync_to_disk(temporary)
        temporary.replace(path)
        sync_to_disk(path.parent)
        check_video(path, frames)  # the segments go next: what has the name now must be what was joined
    except Exception as error:
        raise as_output_error(error, path) from None
    finally:
        if joiner is not None:
            joiner.abort()
        with contextlib.suppress(OSError):
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def _whole_segments(folder: Path) -> Iterator[Path]:
    for index in itertools.count():
        segment = segment_path(folder, index)
        if not _is_whole(segment):
            raise OutputError(f"{segment}: is damaged; repeat the command, which makes it again")
        yield segment


class _SegmentWriter(VideoWriter):
    """Ends the file with a box, which players skip, that holds the hash of all before it."""

    def _finished(self, temporary: Path) -> None:
        digest = bytes.fromhex(file_sha256(temporary))
        with temporary.open("ab") as file:
            file.write(BOX + digest)


def _is_whole(path: Path) -> bool:
    """Whether a segment still is what was written, to the last bit. Raises: OSError."""
    data = path.read_bytes()
    return data[-BOX_BYTES:] == BOX + hashlib.sha256(data[:-BOX_BYTES]).digest()


def _options(encoder: str, options: Mapping[str, str] | None) -> dict[str, str]:
    chosen = dict(ENCODERS.get(encoder, {}) if options is None else options)
    if encoder == "libx264":
        chosen["threads"] = "1"  # what x264 writes depends on their number
    return chosen


def _frames(path: Path) -> int:
    """Frames of a finished segment, 0 if there is none or it is damaged."""
    import av

    if not path.exists():
        return 0
    try:
        if not _is_whole(path):
            log.warning("%s: is damaged; it is made again", path)
            return 0
        with av.open(f"file:{path}") as container:
            return int(container.streams.video[0].frames)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        log.warning("%s: is damaged (%s); it is made again", path, error)
        return 0
