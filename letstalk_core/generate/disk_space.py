"""What a run needs on the disk, and whether it failed for want of it."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

from ..errors import OutputError

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
WORDS = ("no space left", "file too large", "quota exceeded", "disk full", "not enough space")
GUESS = 0.06  # bytes per pixel of H.264 as it is set here, before a video is there to measure
SOUND = 24_000  # bytes a second of AAC in stereo
WAITING = 3  # segments whose latents lie on the disk while their video is made


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error, by its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if getattr(error, "errno", None) in FULL or any(word in str(error).lower() for word in WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def bytes_needed(
    *, frames: int, held: int, fps: float, pixels: int, video: int, latents: float, segment_frames: int, keep: bool
) -> int:
    """Bytes that the rest of a run will write: segments, the file so far, the joined video, sound twice, latents.

    `video`: bytes of the segments of `held` frames. `latents`: bytes of those of one frame.
    """
    left = frames - held
    per_frame = video / held if held else GUESS * pixels
    waiting = left if keep else min(left, WAITING * segment_frames)
    return round(per_frame * (2 * left + frames) + latents * waiting + 2 * SOUND * frames / fps)


def readable(count: float) -> str:
    """3_400_000 -> "3.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def with_shortage(
    error: OutputError, folder: Path, *, frames: int, held: int, clip_frames: int, **known: Any
) -> OutputError:
    """The same error, and if the disk is full how much is missing, measured on what the work folder holds.
    `known`: the other arguments of `bytes_needed`."""
    if not is_full(error):
        return error
    sizes = {kind: [p.stat().st_size for p in folder.glob(f"{kind}-*")] for kind in ("video", "clip")}
    latents = max(sizes["clip"], default=0) / clip_frames
    need = bytes_needed(frames=frames, held=held, video=sum(sizes["video"]), latents=latents, **known)
    free = shutil.disk_usage(folder).free
    told = OutputError(
        f"{error}. About {readable(need)} are needed for the {frames - held} of {frames} frames to come and the"
        f" joined video, {readable(free)} are free. Then repeat the command: it continues from {folder}"
    )
    told.__cause__ = error
    return told
