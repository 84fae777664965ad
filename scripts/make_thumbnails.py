"""Make the pictures of the template browser: `python scripts/make_thumbnails.py URL [WORKFLOW ...]`.

URL is a running ComfyUI with this pack, WORKFLOW a name such as 2_step_by_step (default: all). Each is run on the
first seconds of its speech. Written are workflows/<workflow>.jpg: four moments in which the mouth is open, or one
of a wide picture; where the workflow shows a picture, too, such as a loss curve, it takes the lower half.
"""

from __future__ import annotations

import io
import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
SIZE = 400  # pixels
SECONDS = 4.0  # of speech, where a workflow takes all of it
LIMITS = {"LetsTalkEncodeAudio": "length_seconds", "LetsTalkPortraitVideo": "max_seconds"}


class Server:
    """A running ComfyUI."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def ask(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data)) as reply:
            answer: bytes = reply.read()
        return answer

    def run(self, graph: dict[str, Any]) -> list[dict[str, str]]:
        """Everything that the nodes of a graph showed, as `/view` names it. Raises: RuntimeError."""
        prompt = json.loads(self.ask("/prompt", {"prompt": graph}))["prompt_id"]
        while not (history := json.loads(self.ask(f"/history/{prompt}")).get(prompt)):
            time.sleep(1)
        if history["status"]["status_str"] != "success":
            raise RuntimeError(json.dumps(history["status"]["messages"], indent=1))
        return [shown for node in history["outputs"].values() for shown in node.get("images", [])]

    def view(self, shown: dict[str, str]) -> io.BytesIO:
        return io.BytesIO(self.ask(f"/view?{urllib.parse.urlencode(shown)}"))


def shortened(graph: dict[str, Any]) -> dict[str, Any]:
    """The same graph over the beginning of its speech. Changes it in place."""
    for node in graph.values():
        name = LIMITS.get(node["class_type"])
        if name is not None:
            node["inputs"][name] = node["inputs"].get(name) or SECONDS
    return graph


def read_frames(file: io.BytesIO) -> np.ndarray:
    """(n, h, w, 3) uint8."""
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def talking_moments(frames: np.ndarray, count: int) -> list[np.ndarray]:
    """One frame of each part of the video: more movement of the lower middle than in 4 of 5 others."""
    height, width = frames.shape[1:3]
    mouth = frames[:, height // 2 : height * 7 // 8, width // 3 : width * 2 // 3].astype(np.float32)
    change = np.abs(mouth - np.median(mouth, axis=0)).mean(axis=(1, 2, 3))
    parts = np.array_split(np.arange(len(frames)), count)
    return [frames[part[np.argsort(change[part])[int(0.8 * (len(part) - 1))]]] for part in parts]


def thumbnail(frames: np.ndarray, below: Image.Image | None = None) -> Image.Image:
    height, width = frames.shape[1:3]
    if width > height:
        left = (width - height) // 2
        picture = Image.fromarray(talking_moments(frames, 1)[0][:, left : left + height])
    else:
        a, b, c, d = talking_moments(frames, 4)
        picture = Image.fromarray(np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)]))
    picture = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    if below is not None:
        picture.paste(ImageOps.fit(below.convert("RGB"), (SIZE, SIZE // 2)), (0, SIZE // 2))
    return picture


def main(url: str, names: list[str]) -> None:
    server = Server(url)
    for name in names or sorted(path.stem for path in WORKFLOWS.glob("*.json")):
        graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
        shown = server.run(shortened(graph))
        videos = [item for item in shown if item["filename"].endswith(".mp4")]
        video = next((item for item in videos if item["type"] == "output"), videos[0])
        pictures = [item for item in shown if item["filename"].endswith(".png")]
        below = Image.open(server.view(pictures[-1])) if pictures else None
        picture = thumbnail(read_frames(server.view(video)), below)
        picture.save(WORKFLOWS / f"{name}.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
