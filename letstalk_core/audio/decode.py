"""Sound of any container or codec as blocks of mono 16 kHz samples, decoded as a stream by PyAV.

Resampling is FFmpeg's (`av.AudioResampler`): it keeps its filter state from block to block, so a stream gives the
very samples that one call on the whole recording would give.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

import torch
from einops import reduce
from torch import Tensor

from ..errors import ConfigError, DependencyError, MediaError
from .alignment import SAMPLE_RATE
from .statistics import WaveformMoments

__all__ = ["MIN_SAMPLES", "AudioSource", "Sound", "WaveformSource", "as_source", "load_waveform", "open_media"]

MIN_SAMPLES = 400  # 25 ms at 16 kHz: what one step of the encoder hears
BLOCK_SAMPLES = SAMPLE_RATE  # a second

log = logging.getLogger(__name__)


def open_media(path: str | os.PathLike[str]) -> Any:
    """Open a local file for reading: PyAV's `InputContainer`. Raises: MediaError, DependencyError."""
    try:
        import av
    except ImportError as error:
        raise DependencyError(f"reading sound and video needs PyAV ({error}); pip install av") from None
    file = Path(path)
    if not file.exists():
        raise MediaError(f"{file}: no such file; check the path")
    if not file.is_file():
        raise MediaError(f"{file}: is not a file; give a sound or video file")
    if file.stat().st_size == 0:
        raise MediaError(f"{file}: is empty (0 bytes); get the file again")
    try:
        # The prefix keeps names with colons from being taken for protocols; the lists keep playlists off the net.
        options = {"protocol_whitelist": "file,crypto,data", "format_whitelist": _formats()}
        return av.open(f"file:{file}", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{file}: not readable as sound or video ({_reason(error)}); is it the right file?"
        ) from None


@functools.lru_cache(maxsize=1)
def _formats() -> str:
    """Every container FFmpeg reads but those that name other files."""
    import av

    return ",".join(sorted(set(av.formats_available) - {"applehttp", "concat", "dash", "hls", "imf", "lavfi"}))


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


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

    def mean_std(self) -> tuple[float, float]:
        """Mean and standard deviation of the whole recording (see `WaveformMoments.std`)."""
        moments = self.moments()
        return moments.mean, moments.std

    @property
    def samples(self) -> int:
        """Exact length at 16 kHz, counted, because lengths in headers are often wrong."""
        return (self._moments or self.moments()).samples

    @property
    def seconds(self) -> float:
        """Exact length."""
        return self.samples / SAMPLE_RATE


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
            audio = self._audio(container)
            self.source_rate: int = audio.codec_context.sample_rate or 0  # of the file
            self.channels: int = audio.codec_context.channels
            base = audio.time_base
            self.start_seconds = float(audio.start_time * base) if audio.start_time and base else 0.0

    def _audio(self, container: Any) -> Any:
        streams = container.streams.audio
        if not streams:
            raise MediaError(f"{self.path}: has no audio stream; give a file with sound")
        if not 0 <= self.stream < len(streams):
            raise MediaError(f"{self.path}: has {len(streams)} audio streams, number {self.stream} was asked for")
        audio = streams[self.stream]
        if audio.codec_context is None:
            raise MediaError(f"{self.path}: no decoder for its audio codec; convert the file to WAV")
        return audio

    def __iter__(self) -> Iterator[Tensor]:
        with open_media(self.path) as container:
            pending: list[Tensor] = []
            for block in self._resampled(container):
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
        import av

        resampler, shape = None, None
        for frame in _decoded(container, self._audio(container), self.path):
            frame.pts = None  # sound without gaps: wrong timestamps in files are commoner than true gaps
            if shape != (frame.format.name, frame.layout.name, frame.sample_rate):
                if resampler is not None:  # the format changes within the file
                    yield from map(_mono, resampler.resample(None))
                shape = (frame.format.name, frame.layout.name, frame.sample_rate)
                # Channels are mixed afterwards: FFmpeg's own mix to mono makes floating-point sound 3 dB louder.
                resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
            assert resampler is not None
            yield from map(_mono, resampler.resample(frame))
        if resampler is not None:
            yield from map(_mono, resampler.resample(None))


def _mono(frame: Any) -> Tensor:
    return torch.from_numpy(frame.to_ndarray().mean(axis=0))


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Frames of a stream; packets that cannot be decoded are skipped, a damaged end of file ends the stream."""
    import av

    damaged, packets = 0, container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            log.warning("%s: reading stops early (%s)", path, _reason(error))
            break
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.error.EOFError:
            break
        except (av.error.FFmpegError, ValueError):
            damaged += 1
            continue
        yield from frames
    if damaged:
        log.warning("%s: %d damaged packets skipped", path, damaged)


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
