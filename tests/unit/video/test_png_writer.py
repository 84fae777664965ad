from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from letstalk_core.errors import OutputError
from letstalk_core.media.video.writer import PngSequenceWriter

Frames = Callable[..., Tensor]


def test_pictures_are_written_one_by_one_and_whole(tmp_path: Path, frames: Frames) -> None:
    from PIL import Image

    written = frames(4)
    with PngSequenceWriter(tmp_path / "png", start=2) as writer:
        writer.write(written[:1])
        writer.write(written[1:])
    files = sorted((tmp_path / "png").iterdir())
    assert [f.name for f in files] == [f"frame_{i:06d}.png" for i in range(2, 6)]
    for file, frame in zip(files, written, strict=True):
        with Image.open(file) as image:
            assert torch.equal(torch.from_numpy(np.array(image)), frame)
            assert "AI-generated" in image.text["comment"]  # type: ignore[attr-defined]


def test_dropped_pictures_vanish_and_stale_ones_are_mentioned(
    tmp_path: Path, frames: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    long = PngSequenceWriter(tmp_path)
    long.write(frames(4))
    long.close()
    short = PngSequenceWriter(tmp_path)
    short.write(frames(2))
    with caplog.at_level(logging.WARNING):
        short.close()
    assert "frame_000002.png" in caplog.text
    long.abort()
    assert list(tmp_path.iterdir()) == []


def test_pictures_need_a_usable_folder(tmp_path: Path, frames: Frames) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        PngSequenceWriter(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be made"):
        PngSequenceWriter(tmp_path / "file" / "sub")
