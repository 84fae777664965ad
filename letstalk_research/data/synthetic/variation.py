"""One recording spoken in many ways: higher and lower voices, faster and slower, louder, through a codec.

Phone times move along. Rooms, noise and microphones are `training.audio_augment`, which leaves times alone.
Source: ffmpeg's `atempo` (waveform similarity overlap-add) through PyAV.
"""

from __future__ import annotations

import io
import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ

from .speech import Phoneme, Utterance

Wave = NDArray[np.float32]
CODECS = {  # name -> (container, bit rates)
    "libmp3lame": ("mp3", (24_000, 32_000, 64_000)),
    "aac": ("adts", (24_000, 32_000, 64_000)),
    "libopus": ("ogg", (10_000, 16_000, 32_000)),
    "g722": ("wav", (64_000,)),
    "pcm_mulaw": ("wav", (128_000,)),
}
MAX_DELAY_SECONDS = 0.15  # of a codec, which is taken back
TAIL_SECONDS = 0.2


def varied(utterance: Utterance, rng: Generator) -> Utterance:
    """The same words as they might be said by another person or on another day; a sixth stays as it is.

    Pitch and formants by up to a fifth up or down, pace by up to a sixth, loudness from 0.3 to 1.6, and for a
    quarter a codec. Everything is drawn from `rng`.
    """
    shift = float(np.exp(rng.uniform(math.log(0.80), math.log(1.25))))
    pace = float(np.exp(rng.uniform(math.log(0.85), math.log(1.18))))
    gain = float(np.exp(rng.uniform(math.log(0.3), math.log(1.6))))
    codec = str(rng.choice(list(CODECS))) if rng.random() < 0.25 else ""
    rate = float(rng.random())
    if rng.random() < 1 / 6:
        return utterance.scaled(gain)
    # shifting also changes the pace: pull half of it back, as high voices do not hurry
    utterance = paced(shifted(utterance, shift), pace / math.sqrt(shift))
    if codec:
        rates = CODECS[codec][1]
        coded = through_codec(utterance.waveform, codec, rates[int(rate * len(rates))])
        utterance = _replaced(utterance, coded, 1.0)
    return utterance.scaled(gain)


def shifted(utterance: Utterance, factor: float) -> Utterance:
    """Played faster by `factor`: pitch, formants and pace go up together. Raises: ConfigError."""
    _check("factor", factor)
    from torch import from_numpy
    from torchaudio.functional import resample

    # whole percents keep the filters of the resampler small
    percent = round(100 * factor)
    wave: Wave = resample(from_numpy(utterance.waveform), percent, 100).numpy()
    return _replaced(utterance, wave, 100 / percent)


def paced(utterance: Utterance, factor: float) -> Utterance:
    """Spoken faster by `factor` at the same pitch. Raises: ConfigError."""
    _check("factor", factor)
    length = round(len(utterance.waveform) / factor)
    # the filter keeps its last window to itself: give it silence to end on
    tail = np.zeros(round(TAIL_SECONDS * SAMPLE_RATE_HZ), np.float32)
    wave = _filtered(np.concatenate([utterance.waveform, tail]), "atempo", f"{factor:.6f}")[:length]
    wave = np.pad(wave, (0, length - len(wave)))
    return _replaced(utterance, wave, length / max(1, len(utterance.waveform)))


def through_codec(waveform: Wave, codec: str, bit_rate: int) -> Wave:
    """A recording encoded and decoded again, without the codec's delay; unchanged if ffmpeg lacks the codec.

    Shapes: (s,) at 16 kHz -> same. Raises: ConfigError for a codec that is not one of `CODECS`.
    """
    import av

    if codec not in CODECS:
        raise ConfigError(f"codec={codec!r} must be one of {sorted(CODECS)}")
    file, tail = io.BytesIO(), np.zeros(round(2 * MAX_DELAY_SECONDS * SAMPLE_RATE_HZ), np.float32)
    sound = np.concatenate([waveform, tail])
    try:
        with av.open(file, "w", format=CODECS[codec][0]) as output:
            stream: Any = output.add_stream(codec, rate=SAMPLE_RATE_HZ, layout="mono")
            stream.bit_rate = bit_rate
            fifo = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=SAMPLE_RATE_HZ)
            for frame in [*fifo.resample(_frame(sound)), *fifo.resample(None)]:
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    except av.FFmpegError:  # a build without this encoder
        return waveform
    file.seek(0)
    with av.open(file, "r") as source:
        back = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        frames = [out for frame in source.decode(audio=0) for out in back.resample(frame)]
        found = np.concatenate([f.to_ndarray()[0] for f in [*frames, *back.resample(None)]])
    delay = _delay(waveform, found)
    found = np.pad(found, (max(0, -delay), len(waveform)))[max(0, delay) :]
    return np.ascontiguousarray(found[: len(waveform)], np.float32)


def _delay(before: Wave, after: Wave) -> int:
    """By how many samples `after` is late: the peak of the correlation."""
    size = 2 ** math.ceil(math.log2(len(before) + len(after)))
    product = np.fft.irfft(np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size)), size)
    reach = round(MAX_DELAY_SECONDS * SAMPLE_RATE_HZ)
    lags = np.arange(-reach, reach + 1)
    return int(lags[np.argmax(product[lags])])


def _filtered(waveform: Wave, name: str, arguments: str) -> Wave:
    import av
    from av.filter import Graph

    graph = Graph()
    clock = Fraction(1, SAMPLE_RATE_HZ)
    source = graph.add_abuffer(sample_rate=SAMPLE_RATE_HZ, format="flt", layout="mono", time_base=clock)
    graph.link_nodes(source, graph.add(name, arguments), graph.add("abuffersink")).configure()
    graph.push(_frame(waveform))
    graph.push(None)
    parts: list[Wave] = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray()[0])
        except (av.error.EOFError, av.error.BlockingIOError):
            break
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _frame(waveform: Wave) -> Any:
    from av import AudioFrame

    frame = AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None], np.float32), format="flt", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    frame.pts = 0
    return frame


def _replaced(utterance: Utterance, waveform: Wave, stretch: float) -> Utterance:
    """Other sound with all times multiplied by `stretch`; the last phoneme ends with the sound."""
    spans = [Phoneme(p.symbol, p.start_s * stretch, p.end_s * stretch) for p in utterance.phonemes]
    if spans:
        spans[-1] = Phoneme(spans[-1].symbol, spans[-1].start_s, len(waveform) / SAMPLE_RATE_HZ)
    return Utterance(np.ascontiguousarray(waveform, np.float32), tuple(spans), utterance.voice, utterance.text)


def _check(name: str, factor: float) -> None:
    if not 0.5 <= factor <= 2.0:
        raise ConfigError(f"{name}={factor} must be in 0.5..2")
