"""Sound of any container or codec as blocks of mono 16 kHz samples, decoded as a stream by PyAV.

Resampling is FFmpeg's (`av.AudioResampler`): it keeps its filter state from block to block, so a stream gives the
very samples that one call on the whole recording would give.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from ...errors import ConfigError, MediaError
from ...files import file_sha256
from ...networks.statistics import WaveformMoments
from ..av_input import audio_stream, decoded_frames, open_media, resampled_frames, start_seconds, video_stream
from .alignment import SAMPLE_RATE, frame_count

MIN_SAMPLES = 400  # 25 ms at 16 kHz: what one step of the encoder hears
BLOCK_SAMPLES = SAMPLE_RATE  # a second

log = logging.getLogger(__name__)


class _Source:
    """What sounds have in common: blocks of samples on each iteration, and statistics from one extra pass."""

    name: str = "audio"
    sample_rate: int = SAMPLE_RATE  # of the blocks

    def __init__(self) -> None:
        self._moments: WaveformMoments | None = None

    def __iter__(self) -> Iterator[Tensor]:
        raise NotImplementedError

    def moments(self, kernel: int = 10, stride: int = 5) -> WaveformMoments:
        """Statistics of the whole recording: one pass, remembered. Raises: MediaError if it is too short."""
        if self._moments is None or (self._moments.kernel, self._moments.stride) != (kernel, stride):
            moments = WaveformMoments(kernel, stride)
            for block in self:
                moments.update(block)
            _check_length(self.name, moments.samples)
            self._moments = moments
        return self._moments

    @property
    def samples(self) -> int:
        """Exact length at 16 kHz, counted, because lengths in headers are often wrong."""
        return (self._moments or self.moments()).samples

    @property
    def seconds(self) -> float:
        """Exact length."""
        return self.samples / SAMPLE_RATE

    def frames(self, fps: float) -> int:
        """Video frames that the encoder makes states for."""
        return frame_count(self.seconds, fps)


class AudioSource(_Source):
    """The first (or a given) audio stream of a file: iterates mono 16 kHz float32 blocks (n,), as often as wanted.

    Memory does not depend on the length. Damaged packets are skipped with a warning, as players do.
    Raises: MediaError when made (missing, not media, no audio stream) or read (nothing decodable, NaN samples).
    """

    def __init__(self, path: str | os.PathLike[str], stream: int = 0) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = str(self.path)
        self.stream = stream
        with open_media(self.path) as container:
            audio = audio_stream(container, self.path, stream)
            self.source_rate: int = audio.codec_context.sample_rate or 0  # of the file
            self.channels: int = audio.codec_context.channels
            self.start_seconds = start_seconds(audio)
        self._sha256: str | None = None
        self._look: tuple[int, ...] = ()

    def pin(self) -> str:
        """The hash of the file as it is now, which it must have to the end (see `check_unchanged`)."""
        if self._sha256 is None:
            self._look = _look(self.path)
            self._sha256 = file_sha256(self.path)
        return self._sha256

    def check_unchanged(self) -> None:
        """Raises: MediaError if the file is not the one that was pinned: parts of two would be in one video."""
        try:
            look = _look(self.path)
            same = self._sha256 in (None, file_sha256(self.path))
        except OSError:
            same = False
        if not same:
            raise MediaError(
                f"{self.path}: was changed or replaced while it was used; put the recording back as it was, or"
                " begin again with the new one"
            )
        self._look = look

    def __iter__(self) -> Iterator[Tensor]:
        with open_media(self.path) as container:
            pending: list[Tensor] = []
            for block in self._resampled(container):
                if self._sha256 is not None and self._look != _look(self.path):  # nothing of another file gets out
                    self.check_unchanged()
                if not torch.isfinite(block).all():
                    raise MediaError(
                        f"{self.path}: has NaN or infinite samples; export the sound again, as 16-bit WAV"
                    )
                pending.append(block)
                if sum(p.numel() for p in pending) >= BLOCK_SAMPLES:
                    yield torch.cat(pending)
                    pending = []
            if pending:
                yield torch.cat(pending)

    def _resampled(self, container: Any) -> Iterator[Tensor]:
        # Channels are mixed afterwards: FFmpeg's own mix to mono makes floating-point sound 3 dB louder.
        stream = audio_stream(container, self.path, self.stream)
        frames = decoded_frames(container, stream, self.path)
        yield from map(_mono, resampled_frames(frames, self.path, SAMPLE_RATE))


def _look(path: Path) -> tuple[int, ...]:
    """What changes with a file, without reading it."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _mono(frame: Any) -> Tensor:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    return torch.from_numpy(samples.mean(axis=0))


class WaveformSource(_Source):
    """A waveform in memory with the interface of `AudioSource`: (samples,) or (channels, samples) at any rate."""

    def __init__(self, waveform: Tensor, sample_rate: int = SAMPLE_RATE) -> None:
        super().__init__()
        if waveform.ndim not in (1, 2) or waveform.numel() == 0:
            raise MediaError(f"waveform has shape {list(waveform.shape)}; needs (samples,) or (channels, samples)")
        if sample_rate < 1:
            raise ConfigError(f"sample_rate={sample_rate} must be positive")
        waveform = waveform.detach().float().cpu()
        if not torch.isfinite(waveform).all():
            raise MediaError("the waveform has NaN or infinite samples; load the sound again")
        waveform = waveform if waveform.ndim == 1 else reduce(waveform, "c s -> s", "mean")
        if sample_rate != SAMPLE_RATE:
            from torchaudio.functional import resample

            waveform = resample(waveform, sample_rate, SAMPLE_RATE)
        self.waveform = waveform
        self.source_rate = sample_rate

    def __iter__(self) -> Iterator[Tensor]:
        for first in range(0, self.waveform.numel(), BLOCK_SAMPLES):
            yield self.waveform[first : first + BLOCK_SAMPLES]


Sound = Union[AudioSource, WaveformSource, Tensor, str, "os.PathLike[str]"]


def as_source(sound: Sound) -> AudioSource | WaveformSource:
    """A sound given as path, as 16 kHz waveform or as source."""
    if isinstance(sound, (AudioSource, WaveformSource)):
        return sound
    return WaveformSource(sound) if isinstance(sound, Tensor) else AudioSource(sound)


def _check_length(name: str, samples: int) -> None:
    if samples == 0:
        raise MediaError(f"{name}: no sound could be decoded from it; convert it to WAV")
    if samples < MIN_SAMPLES:
        raise MediaError(
            f"{name}: lasts {1000 * samples / SAMPLE_RATE:.1f} ms, at least {1000 * MIN_SAMPLES // SAMPLE_RATE} ms"
            " are needed; give a longer recording or append silence"
        )


def load_waveform(path: str | os.PathLike[str]) -> Tensor:
    """A whole file as mono 16 kHz float32 (samples,). For long files iterate `AudioSource` instead."""
    blocks = list(AudioSource(path))
    waveform = torch.cat(blocks) if blocks else torch.zeros(0)
    _check_length(str(path), waveform.numel())
    return waveform


def load_sound(path: str | os.PathLike[str]) -> tuple[Tensor, int]:
    """A whole file as it is to be heard: (1 or 2, samples) float32, and its rate in Hz; surround becomes stereo.

    Raises: MediaError.
    """
    path = Path(path)
    with open_media(path) as container:
        stream = audio_stream(container, path)
        rate = stream.codec_context.sample_rate or SAMPLE_RATE
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        frames = resampled_frames(decoded_frames(container, stream, path), path, rate, layout)
        parts = [torch.from_numpy(frame.to_ndarray()) for frame in frames]
    waveform = torch.cat(parts, dim=1) if parts else torch.zeros(1, 0)
    _check_length(str(path), waveform.shape[1] * SAMPLE_RATE // rate)
    if not torch.isfinite(waveform).all():
        raise MediaError(f"{path}: has NaN or infinite samples; export the sound again, as 16-bit WAV")
    return waveform, rate


def load_video_sound(path: str | os.PathLike[str]) -> Tensor:
    """The first sound of a video as 16 kHz mono (samples,), from its first picture on. Raises: MediaError."""
    with open_media(path) as container:
        picture = start_seconds(video_stream(container, Path(path)))
    source = AudioSource(path)
    waveform = torch.cat([torch.zeros(0), *source])
    shift = source.start_seconds - picture
    if abs(shift) > 60:
        log.warning("%s: sound and picture claim to start %.0f s apart; ignored", path, shift)
        return waveform
    return F.pad(waveform, (max(round(shift * SAMPLE_RATE), -len(waveform)), 0))  # a negative shift cuts
