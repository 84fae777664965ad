"""Speech at the loudness of broadcasts, so that quiet recordings and loud ones move the mouth alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import ConfigError

SPEECH_LUFS = -23.0  # EBU R 128
SHORTEST_SECONDS = 0.4  # one block of the measurement
MOST_GAIN = 30.0  # dB; what needs more is noise
HEADROOM = 0.5  # torchaudio's filters cut off at full scale, above which one of them lifts loud sound
DULLEST_RATE = 8000  # Hz; below, the filter of the measurement has no meaning


def measure_loudness(waveform: Tensor, sample_rate: int) -> float:
    """Integrated loudness of (channels, samples) in LUFS; -inf for silence and for less than 0.4 s.

    Source: ITU-R BS.1770-4, by torchaudio.
    """
    from torchaudio.functional import loudness

    if waveform.ndim != 2 or sample_rate < DULLEST_RATE:
        raise ConfigError(
            f"waveform has shape {list(waveform.shape)} at {sample_rate} Hz; needs (channels, samples) at"
            f" {DULLEST_RATE} Hz or more"
        )
    if waveform.shape[-1] < math.ceil(SHORTEST_SECONDS * sample_rate):
        return -math.inf
    scale = HEADROOM / max(1.0, float(waveform.abs().max()))
    found = float(loudness(waveform.float() * scale, sample_rate)) - 20 * math.log10(scale)
    return found if math.isfinite(found) else -math.inf


def normalize_loudness(waveform: Tensor, sample_rate: int, target: float = SPEECH_LUFS) -> Tensor:
    """(channels, samples) with one gain, at most 30 dB, that brings it to `target` LUFS; silence stays as it is.

    The peaks may pass full scale: what follows are networks, not loudspeakers.
    """
    found = measure_loudness(waveform, sample_rate)
    if found == -math.inf:
        return waveform
    gain = max(-MOST_GAIN, min(MOST_GAIN, target - found))
    return waveform * torch.tensor(10 ** (gain / 20), dtype=waveform.dtype)
