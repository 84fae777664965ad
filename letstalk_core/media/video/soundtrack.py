"""The sound of a video while it is written: the original recording as AAC, cut to the length of the video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import numpy as np
from torch import Tensor

from ...errors import MediaError
from ..audio.alignment import SAMPLE_RATE
from ..av_input import audio_stream, decoded_frames, open_media, resampled_frames

SoundtrackSource = Union[str, "os.PathLike[str]", "tuple[Tensor, int]", Any]
BLOCK = 48_000  # samples


def check_sound(source: SoundtrackSource) -> None:
    """Raises: MediaError for what no Soundtrack can be made of."""
    waveform: Any = source[0] if isinstance(source, tuple) else getattr(source, "waveform", None)
    if waveform is not None:
        _waveform_blocks(waveform)
        return
    opened: Any = source
    path = Path(getattr(opened, "path", opened))
    with open_media(path) as container:
        audio_stream(container, path, getattr(opened, "stream", 0))


class Soundtrack:
    """Reads a recording again, in its own quality, and encodes it into an open container step by step.

    44.1 kHz stays 44.1 kHz, other rates become 48 kHz; mono stays mono, more than two channels become stereo.
    A tuple is a waveform, (samples,) or (channels, samples), with its rate; a source of `audio.decode` goes too.
    """

    def __init__(self, source: SoundtrackSource, container: Any) -> None:
        self._path = Path("sound")  # for messages
        waveform: Any = getattr(source, "waveform", None)
        if waveform is not None:
            source = (waveform, getattr(source, "sample_rate", SAMPLE_RATE))
        if isinstance(source, tuple):
            waveform, self.source_rate = source
            self._blocks = _waveform_blocks(waveform)
            self.channels = 1 if waveform.ndim == 1 else min(2, waveform.shape[0])
        else:
            path, number = Path(getattr(source, "path", source)), getattr(source, "stream", 0)
            with open_media(path) as opened:
                context = audio_stream(opened, path, number).codec_context
                self.source_rate, self.channels = context.sample_rate, min(2, context.channels)
            self._path, self._blocks = path, _file_blocks(path, number)
        self.layout = "mono" if self.channels == 1 else "stereo"
        self.rate = 44_100 if self.source_rate in (11_025, 22_050, 44_100, 88_200) else 48_000
        self.container = container
        self.stream = container.add_stream("aac", rate=self.rate, layout=self.layout)
        self.stream.bit_rate = 96_000 * self.channels
        self._converted = self._convert()
        self._held: Any = np.zeros((self.channels, 0), np.float32)
        self._ended = False
        self.written = 0  # samples

    def write_until(self, seconds: Any) -> None:
        """Encode up to this moment of the video; silence follows where the recording has ended."""
        target = round(seconds * self.rate)
        while self.written < target:
            if self._held.shape[1] == 0 and not self._ended:
                block = next(self._converted, None)
                self._ended = block is None
                self._held = block if block is not None else self._held
                continue
            count = min(target - self.written, BLOCK)
            if self._ended and self._held.shape[1] == 0:
                block = np.zeros((self.channels, count), np.float32)
            else:
                block, self._held = self._held[:, :count], self._held[:, count:]
            self._encode(block)

    def finish(self) -> None:
        """Write what the encoder still holds, and let go of the recording."""
        if self.written:
            self.container.mux(self.stream.encode(None))
        self.close()

    def close(self) -> None:
        """Let go of the recording."""
        self._converted.close()

    def _encode(self, block: Any) -> None:
        frame = _audio_frame(block, self.rate, self.layout)
        frame.pts = self.written  # also tells the container how long the encoder's start delay is
        self.written += block.shape[1]
        self.container.mux(self.stream.encode(frame))

    def _convert(self) -> Any:
        """Blocks (channels, n) float32 at the rate and layout of the track."""
        frames = (block if not isinstance(block, Tensor) else self._tensor_frame(block) for block in self._blocks)
        for frame in resampled_frames(frames, self._path, self.rate, self.layout):
            yield np.nan_to_num(frame.to_ndarray())

    def _tensor_frame(self, block: Tensor) -> Any:
        return _audio_frame(np.ascontiguousarray(np.atleast_2d(block.numpy())), self.source_rate, self.layout)


def _audio_frame(block: Any, rate: int, layout: str) -> Any:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block, np.float32), format="fltp", layout=layout)
    frame.sample_rate = rate
    return frame


def _file_blocks(path: Path, number: int) -> Iterator[Any]:
    with open_media(path) as container:
        yield from decoded_frames(container, audio_stream(container, path, number), path)


def _waveform_blocks(waveform: Tensor) -> Iterator[Tensor]:
    if waveform.ndim not in (1, 2) or waveform.numel() == 0:
        raise MediaError(f"waveform has shape {list(waveform.shape)}; needs (samples,) or (channels, samples)")
    waveform = waveform.detach().float().cpu()
    waveform = waveform[None] if waveform.ndim == 1 else waveform
    if waveform.shape[0] > 2:
        waveform = waveform.mean(0, keepdim=True).expand(2, -1)
    return (waveform[:, i : i + BLOCK] for i in range(0, waveform.shape[1], BLOCK))
