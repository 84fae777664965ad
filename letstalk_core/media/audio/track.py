"""A recording as the denoiser's host hands it round: encoder states of every video frame, and the sound itself."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError, NumericalError, OutputError
from .alignment import SAMPLE_RATE, window_states

SPOOL_BYTES = 256 * 2**20  # above this, states go to a file: an hour of wav2vec2-base needs 3.3 GB


@dataclass(eq=False, repr=False)
class AudioTrack:
    """Encoder states per video frame, and where their sound is. Never changed after it is made.

    states: (frames, layers, dim) float32 on the CPU, in memory or mapped from a file.
    waveform: (channels, samples) float32 at `sample_rate`, as it is to be heard, or None. start_seconds: how much
    of the recording was cut off before it. kind: which encoder made the states, for messages; encoder_file: where
    its weights are, if that is known. shown: frames that the video has, where the states go on behind them.
    Raises: ConfigError for states or a waveform of another shape.
    """

    states: Tensor
    fps: float
    _: KW_ONLY
    kind: str = ""
    encoder_file: Path | None = None
    waveform: Tensor | None = None
    sample_rate: int = SAMPLE_RATE
    start_seconds: float = 0.0
    shown: int | None = None

    def __post_init__(self) -> None:
        if self.states.ndim != 3 or min(self.states.shape) < 1:
            raise ConfigError(
                f"audio states are {list(self.states.shape)}; needs (frames, layers, dim), 1 frame or more"
            )
        if self.waveform is not None and self.waveform.ndim != 2:
            raise ConfigError(f"waveform has shape {list(self.waveform.shape)}; needs (channels, samples)")

    @property
    def frames(self) -> int:
        return self.states.shape[0] if self.shown is None else self.shown

    @property
    def layers(self) -> int:
        return self.states.shape[1]

    @property
    def dim(self) -> int:
        return self.states.shape[2]

    def windows(self, first: int, count: int, window: int) -> Tensor:
        """Windows of frames first..first+count-1, ends repeated: (count, window, layers, dim)."""
        return window_states(self.states, first, count, window)

    def __repr__(self) -> str:
        shape = f"{self.frames} frames at {self.fps:g} fps, {self.layers} layers of {self.dim}"
        return f"AudioTrack({shape}, {self.kind or 'unknown encoder'})"

    @classmethod
    def build(
        cls, blocks: Iterable[Tensor], frames: int, fps: float, *, spool: Path | None = None, **sound: Any
    ) -> AudioTrack:
        """Collect blocks (k, layers, dim), `frames` frames in all, as `features.encode_audio` yields them.

        `sound` is what the track takes beside them.
        More than `SPOOL_BYTES` go to a file in the folder `spool`, if one is given; the file goes when the track
        does. Raises: ConfigError if other than `frames` frames come, NumericalError, OutputError.
        """
        stream = _checked(blocks, frames)
        first = next(stream)
        size = frames * first[0].numel() * first.element_size()
        if spool is None or size <= SPOOL_BYTES:
            states = first.new_empty((frames, *first.shape[1:]))
            _fill(states, first, stream)
            return cls(states, fps, **sound)
        path = _write(spool, first, stream)
        try:
            flat = torch.from_file(str(path), shared=False, size=size // first.element_size(), dtype=first.dtype)
        except (OSError, RuntimeError) as error:
            path.unlink(missing_ok=True)
            raise OutputError(f"{path}: cannot be mapped into memory ({error})") from error
        track = cls(flat.view(frames, *first.shape[1:]), fps, **sound)
        weakref.finalize(track, _remove, path)
        return track


def _checked(blocks: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    """The blocks as float32 on the CPU, of equal shape and `frames` frames in all."""
    seen, shape = 0, None
    for block in blocks:
        block = block.detach().float().cpu()
        shape = shape or block.shape[1:]
        seen += len(block)
        if block.ndim != 3 or block.shape[1:] != shape or seen > frames:
            raise ConfigError(f"audio states of shape {list(block.shape)} do not fit into {frames} frames")
        if not torch.isfinite(block).all():
            raise NumericalError("the audio encoder gave NaN or infinity; run it in float32, or check its weights")
        yield block
    if seen != frames or not seen:
        raise ConfigError(f"the audio encoder gave {seen} of {frames} frames")


def _fill(states: Tensor, first: Tensor, rest: Iterator[Tensor]) -> None:
    states[: len(first)] = first
    position = len(first)
    for block in rest:
        states[position : position + len(block)] = block
        position += len(block)


def _write(spool: Path, first: Tensor, rest: Iterator[Tensor]) -> Path:
    """The states in a new file. Written, not mapped, so that a full disk is an error and not a crash."""
    handle, name = None, ""
    try:
        spool.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="letstalk_audio_", suffix=".bin", dir=spool)
        with os.fdopen(handle, "wb") as file:
            file.write(first.numpy().tobytes())
            for block in rest:
                file.write(block.numpy().tobytes())
    except BaseException as error:  # an interrupt, too, leaves nothing behind
        _remove(Path(name))
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise OutputError(
                f"{spool}: audio states cannot be written ({reason}); check the folder and free disk space"
            ) from error
        raise
    return Path(name)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows keeps files that are still mapped; the folder is a temporary one
        path.unlink()
