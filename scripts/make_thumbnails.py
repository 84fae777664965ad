"""Make the pictures of the template browser: `python scripts/make_thumbnails.py FOLDER`.

FOLDER holds the video that each workflow made, <workflow>.mp4. Written are workflows/<workflow>.jpg: four moments
in which the mouth is open, or one of a wide picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
SIZE = 400  # pixels


def read_frames(path: Path) -> np.ndarray:
    """(n, h, w, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def talking_moments(frames: np.ndarray, count: int) -> list[np.ndarray]:
    """One frame of each part of the video: more movement of the lower middle than in 4 of 5 others."""
    height, width = frames.shape[1:3]
    mouth = frames[:, height // 2 : height * 7 // 8, width // 3 : width * 2 // 3].astype(np.float32)
    change = np.abs(mouth - np.median(mouth, axis=0)).mean(axis=(1, 2, 3))
    parts = np.array_split(np.arange(len(frames)), count)
    return [frames[part[np.argsort(change[part])[int(0.8 * (len(part) - 1))]]] for part in parts]


def thumbnail(frames: np.ndarray) -> Image.Image:
    height, width = frames.shape[1:3]
    if width > height:
        left = (width - height) // 2
        picture = Image.fromarray(talking_moments(frames, 1)[0][:, left : left + height])
    else:
        a, b, c, d = talking_moments(frames, 4)
        picture = Image.fromarray(np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)]))
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    for video in sorted(Path(sys.argv[1]).glob("*.mp4")):
        thumbnail(read_frames(video)).save(WORKFLOWS / f"{video.stem}.jpg", quality=85, optimize=True)
