"""States of the audio encoder for every video frame of a recording of any length, in constant memory.

Source: docs/model.md, Audio. Long sound goes through the encoder in windows with context on both sides that is
then thrown away. Loudness and the group norm of the first convolution use statistics of the whole recording, and
windows start on the encoder's own step grid: convolutional features are those of one pass over everything, and
only the transformer's view ends at the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Union

import torch
from torch import Tensor

from ...errors import ConfigError, MediaError
from ...networks.audio_encoder import AudioEncoder, normalise_waveform
from ...networks.numerical_guard import NumericalGuard
from ...networks.statistics import WaveformMoments
from .alignment import frame_count, frame_positions, window_states
from .decode import AudioSource, Sound, WaveformSource, as_source
from .padding import PaddedSource

Source = Union[AudioSource, WaveformSource, PaddedSource]
REMEDY = "check the weights of the audio encoder"
CONTEXT_MARGIN = 10  # frames of attention beyond the reach of the positional convolution


@dataclass(frozen=True)
class AudioWindow:
    """One run of the encoder: it sees frames begin..end-1 and delivers first..first+count-1."""

    first: int
    count: int
    begin: int
    end: int


def plan_windows(
    frames: int, fps: float, window_seconds: float = 20.0, context_seconds: float = 2.0, least_context: int = 0
) -> list[AudioWindow]:
    """Windows of nearly equal length that deliver every frame once, in order. Raises: ConfigError.

    Context on each side is `context_seconds`, but not less than `least_context` frames.
    """
    if not (window_seconds > 0 and context_seconds >= 0 and math.isfinite(window_seconds + context_seconds)):
        raise ConfigError(
            f"window_seconds={window_seconds} must be > 0 and context_seconds={context_seconds} >= 0"
        )
    core, context = frame_count(window_seconds, fps), max(round(context_seconds * fps), least_context)
    # Short sound goes in one pass; equal windows avoid a last one of a few frames.
    number = 1 if frames <= core + 2 * context else math.ceil(frames / core)
    edges = [round(i * frames / number) for i in range(number + 1)]
    return [
        AudioWindow(first, last - first, max(0, first - context), min(frames, last + context))
        for first, last in zip(edges[:-1], edges[1:], strict=True)
    ]


def encode_audio(
    encoder: AudioEncoder,
    sound: Sound | PaddedSource,
    fps: float = 25.0,
    window_seconds: float = 20.0,
    context_seconds: float = 2.0,
    first: int = 0,
) -> Iterator[Tensor]:
    """Encode a file, source or 16 kHz waveform: yields (k, layers, d), `frame_count(seconds, fps)` frames in all.

    Windows that end before frame `first` are left out; the others give what they give in a whole pass.

    The sound is read twice: once for its statistics, once to be encoded. Tensors are on the encoder's device.
    A window that holds NaN or infinity is encoded again in float32.
    Raises: MediaError for unusable sound, ConfigError for settings, NumericalError naming the frames.
    """
    source = sound if isinstance(sound, PaddedSource) else as_source(sound)
    config = encoder.config
    moments = source.moments(config.conv_kernel[0], config.conv_stride[0])
    frames = source.frames(fps)
    reader = _Samples(source)
    guard = NumericalGuard()
    for window in _windows(encoder, frames, fps, window_seconds, context_seconds, first):
        heard = _hear(encoder, reader, moments, window, frames)
        stage = f"audio features of frames {window.begin} to {window.end - 1}"
        states = guard(stage, encoder, partial(_encode_window, heard=heard, moments=moments), remedy=REMEDY)
        begin = window.first - window.begin
        yield states[begin : begin + window.count]


def _windows(
    encoder: AudioEncoder,
    frames: int,
    fps: float,
    window_seconds: float = 20.0,
    context_seconds: float = 2.0,
    first: int = 0,
) -> list[AudioWindow]:
    # The positional convolution counts frames, not seconds: wav2vec2-base sees 64 on each side at any fps.
    least_context = encoder.config.num_conv_pos_embeddings // 2 + CONTEXT_MARGIN
    plan = plan_windows(frames, fps, window_seconds, context_seconds, least_context)
    return [window for window in plan if window.first + window.count > first]


@dataclass(frozen=True)
class _Heard:
    """Places of a window's frames among the encoder's steps, of which it gets first..last, and the samples."""

    positions: Tensor
    first: int
    last: int
    samples: Tensor


def _hear(
    encoder: AudioEncoder, reader: _Samples, moments: WaveformMoments, window: AudioWindow, frames: int
) -> _Heard:
    steps = encoder.conv_length(moments.samples)
    positions = frame_positions(window.begin, window.end - window.begin, frames, steps)
    first = int(positions[0])
    last = min(steps - 1, int(positions[-1]) + 1)
    stop = min(moments.samples, last * encoder.hop + encoder.receptive_field)
    return _Heard(positions, first, last, reader.read(first * encoder.hop, stop))


@torch.no_grad()
def _encode_window(encoder: AudioEncoder, heard: _Heard, moments: WaveformMoments) -> Tensor:
    """States of all frames of a window, context too: (k, layers, d)."""
    device = next(encoder.parameters()).device
    positions, first, last = heard.positions, heard.first, heard.last
    waveform = normalise_waveform(heard.samples, moments.mean, moments.std).to(device)
    convolution: Any = encoder.feature_extractor.conv_layers[0].conv  # type: ignore[index,union-attr]
    features = encoder.conv_features(waveform[None], moments.convolved(convolution.weight, convolution.bias))[0]
    below = positions.floor().long().clamp(max=last) - first
    weight = (positions - positions.floor()).to(device, features.dtype)[:, None]
    features = torch.lerp(features[below], features[(below + 1).clamp(max=last - first)], weight)
    return encoder.contextualise(features[None])[0]


class _Samples:
    """Forward reading of overlapping ranges from a stream of blocks; keeps only what later ranges may need."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._blocks = iter(source)
        self._held = torch.zeros(0)
        self._start = 0  # index of the first held sample

    def read(self, start: int, stop: int) -> Tensor:
        """Samples start..stop-1; `start` never decreases from call to call."""
        blocks, length = [self._held], self._held.numel()
        while self._start + length < stop:
            block = next(self._blocks, None)
            if block is None:
                raise MediaError(f"{self._name}: became shorter while it was read; do not change it during a run")
            blocks.append(block)
            length += block.numel()
        self._held = torch.cat(blocks)[start - self._start :]
        self._start = start
        return self._held[: stop - start]


class AudioFeatures:
    """States per frame with windows on demand: a whole tensor, or a stream of which only the needed part is kept.

    A stream is read forward: windows may not start more than `keep` frames before the last ones asked for.
    """

    def __init__(
        self, states: Iterator[Tensor] | Tensor, frames: int | None = None, fps: float = 25.0, keep: int = 64
    ) -> None:
        self._held: Tensor | None = None
        self._stream: Iterator[Tensor] = iter(())
        if isinstance(states, Tensor):
            if states.ndim != 3 or len(states) < 1 or frames not in (None, len(states)):
                raise ConfigError(f"audio states are {list(states.shape)}; needs ({frames or 'n'}, layers, d)")
            self._held, frames = states, len(states)
        elif frames is None:
            raise ConfigError("AudioFeatures of a stream needs the number of frames")
        else:
            self._stream = iter(states)
        self.frames: int = frames
        self.fps, self._keep, self._start = fps, keep, 0

    @classmethod
    def encode(
        cls, encoder: AudioEncoder, sound: Sound | PaddedSource, fps: float = 25.0, **settings: Any
    ) -> AudioFeatures:
        """Features of a recording, encoded as they are asked for (see `encode_audio`)."""
        source = sound if isinstance(sound, PaddedSource) else as_source(sound)
        source.moments(encoder.config.conv_kernel[0], encoder.config.conv_stride[0])
        frames = source.frames(fps)
        features = cls(encode_audio(encoder, source, fps, **settings), frames, fps)
        features._start = _windows(encoder, frames, fps, **settings)[0].first
        return features

    def windows(self, first: int, count: int, window: int) -> Tensor:
        """Windows of frames first..first+count-1, ends repeated: (count, window, layers, d)."""
        half = window // 2
        low = min(max(0, first - half), self.frames - 1)
        if low < self._start:
            raise ConfigError(f"audio of frame {first} is gone; encode again or keep more than {self._keep}")
        while self._held is None or self._start + len(self._held) < min(self.frames, first + count + half):
            states = next(self._stream, None)
            if states is None:
                break
            self._held = states if self._held is None else torch.cat([self._held, states])
            if low - self._keep > self._start:
                drop = min(low - self._keep - self._start, len(self._held) - 1)
                self._held, self._start = self._held[drop:].clone(), self._start + drop
        if self._held is None:
            raise ConfigError("the audio stream gave no states")
        return window_states(self._held, first - self._start, count, window)

    def all(self) -> Tensor:
        """Everything that is left, from frame 0 if nothing was dropped: (n, layers, d)."""
        parts = ([] if self._held is None else [self._held]) + list(self._stream)
        if self._start or not parts:
            raise ConfigError("the start of this audio stream is gone; encode the sound again")
        self._held = torch.cat(parts)
        return self._held
