"""Video files as containers: opening them for writing, what they say of themselves, and whether they are whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union

from ...errors import DependencyError, LetsTalkError, OutputError

AI_MARKER = "AI-generated video"
# The term of the IPTC vocabulary for media made by a trained model.
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
Metadata = Union[Mapping[str, Any], Callable[[], Mapping[str, Any]]]  # or what gives it when it is written
SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


def import_av() -> Any:
    """PyAV. Raises: DependencyError."""
    try:
        import av
    except ImportError as error:
        raise DependencyError(f"writing video needs PyAV ({error}); pip install av") from None
    return av


def open_output(path: Path, tags: Mapping[str, str], options: Mapping[str, str] | None = None) -> Any:
    """A new video file, its format by its name, for streams to be added to."""
    name = SUFFIXES[path.suffix.lower()]
    if options is None:
        options = {} if name == "matroska" else {"movflags": "use_metadata_tags+faststart"}
    container = import_av().open(f"file:{path}", "w", format=name, options=dict(options))
    container.metadata.update(tags)
    return container


def as_output_error(error: BaseException, path: Path) -> BaseException:
    """System errors as OutputError; everything else as it is."""
    import av

    if isinstance(error, LetsTalkError) or not isinstance(error, (OSError, ValueError, av.error.FFmpegError)):
        return error
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(f"{path}: cannot be written ({reason}); check the folder and free disk space")


def video_tags(metadata: Metadata) -> dict[str, str]:
    """Metadata as text, values of other kinds as JSON, and always with the marks of a generated video."""
    metadata = metadata() if callable(metadata) else metadata
    tags = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items() if v is not None}
    if not any(AI_MARKER.lower() in value.lower() for value in tags.values()):
        tags["comment"] = f"{AI_MARKER} (LetsTalk). {tags.get('comment', '')}".strip()
    tags.setdefault("digital_source_type", DIGITAL_SOURCE_TYPE)
    return {k: v.replace("\0", "") for k, v in tags.items()}


def check_video(path: Path, frames: int) -> None:
    """Buffered writes can fail late and unseen; a file that does not hold its frames must not get its name.

    Counts what can be read, and not only what the header says. Raises: OutputError.
    """
    import av

    try:
        with av.open(f"file:{path}") as container:
            video = container.streams.video[0]
            told = video.frames or frames  # 0: this container does not say
            held = sum(packet.size > 0 for packet in container.demux(video))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise OutputError(f"{path}: cannot be read back ({error}); check free disk space") from None
    if told != frames or held != frames:
        raise OutputError(f"{path}: holds {min(told, held)} of {frames} frames; check free disk space")
