"""A contact sheet: evenly spaced frames of a video of unknown length in one picture, in constant memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...errors import OutputError
from ...files import atomic_path
from ..av_input import open_media, video_stream
from .reader import rgb_frame


class ContactSheet:
    """A FrameSink that writes one PNG with up to `count` frames, row by row in time order. Raises: OutputError."""

    def __init__(self, path: str | os.PathLike[str], count: int = 24, columns: int = 8, tile: int = 192) -> None:
        self.path = Path(path)
        self.count, self.columns, self.tile = count, columns, tile
        self._kept: list[Tensor] = []
        self._stride, self._seen = 1, 0

    def write(self, frames: Tensor) -> None:
        """Take frames (t, h, w, 3) uint8. Every `stride`-th is kept; the stride doubles when too many are."""
        for frame in frames:
            if self._seen % self._stride == 0:
                self._kept.append(_shrink(frame, self.tile))
                if len(self._kept) > 4 * self.count:
                    self._kept, self._stride = self._kept[::2], 2 * self._stride
            self._seen += 1

    def close(self, partial: bool = False) -> None:
        if not self._kept:
            return
        from PIL import Image

        number = min(self.count, len(self._kept))
        chosen = torch.linspace(0, len(self._kept) - 1, number).round().long().tolist()
        tiles = [self._kept[i] for i in chosen]
        columns = min(self.columns, number)
        tiles += [torch.full_like(tiles[0], 255)] * (math.ceil(number / columns) * columns - number)
        sheet = rearrange(torch.stack(tiles), "(r c) h w k -> (r h) (c w) k", c=columns)
        with atomic_path(self.path) as temporary:
            try:
                Image.fromarray(sheet.numpy()).save(temporary, format="PNG")
            except ValueError as error:
                raise OutputError(f"{self.path}: cannot be written ({error})") from None

    def abort(self) -> None:
        self._kept = []


def sheet_frames(path: Path, count: int) -> Iterator[Tensor]:
    """Up to `count` evenly spaced frames (h, w, 3) uint8 of a video, the first and the last among them.

    Decodes from the key frame before each, so that the time does not grow with the length.
    Raises: MediaError.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        times = [packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None]
        times.sort()
        wanted = torch.linspace(0, len(times) - 1, min(count, len(times))).round().long().tolist()
        for time in dict.fromkeys(times[index] for index in wanted):
            container.seek(time, stream=stream)
            frame = next((f for f in container.decode(stream) if f.pts is not None and f.pts >= time), None)
            if frame is not None:
                yield rgb_frame(frame)


def _shrink(frame: Tensor, side: int) -> Tensor:
    """A frame (h, w, 3) uint8 whose longer side is at most `side`."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return frame.clone()
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    x = F.interpolate(rearrange(frame, "h w c -> 1 c h w").float(), size=size, mode="area")
    return rearrange(x.round().clamp(0, 255).to(torch.uint8), "1 c h w -> h w c")
