"""Pauses of speech, at which a long recording can be cut while the mouth is closed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from ...errors import ConfigError
from .alignment import SAMPLE_RATE, frame_at
from .decode import Sound, as_source

STEP = SAMPLE_RATE // 100  # samples of the level meter: 10 ms
REACH = 20  # steps on both sides of a cut that are quiet, too: mouths close slower than sound ends
FLOOR, SPEECH, QUIET = -100.0, 0.9, 20.0  # dB; share of the steps that are not louder than speech; dB below it


def cut_at_pauses(sound: Sound, fps: float, seconds: float) -> list[int]:
    """First frames of the parts of a recording, 0 and on, each at least `seconds` long, cut where it is quiet.

    A part is seldom twice as long; where no pause is, it goes on to the next one. Sound is read as a stream.
    Raises: ConfigError, MediaError.
    """
    if not seconds > 1:
        raise ConfigError(f"parts of {seconds:g} s: must be longer than 1 s")
    levels = _levels(sound)
    around = F.max_pool1d(rearrange(levels, "n -> 1 1 n"), 2 * REACH + 1, stride=1, padding=REACH)[0, 0]
    quiet = float(levels.kthvalue(max(1, round(SPEECH * len(levels))))[0]) - QUIET
    length = round(seconds * SAMPLE_RATE / STEP)
    cuts, begin = [0], length
    while begin + length < len(levels):
        window = around[begin : min(begin + length, len(levels) - length)]
        place = begin + int(window.argmin())
        if float(around[place]) < quiet:
            cuts.append(frame_at(place * STEP / SAMPLE_RATE, fps))
            begin = place + length
        else:
            begin += length
    return cuts


def _levels(sound: Sound) -> Tensor:
    """Root mean square over each 10 ms, in dB of full scale."""
    powers, rest = [], torch.zeros(0)
    for block in as_source(sound):
        samples = torch.cat([rest, block])
        whole = len(samples) // STEP * STEP
        powers.append(reduce(samples[:whole].square(), "(n step) -> n", "mean", step=STEP))
        rest = samples[whole:]
    power = torch.cat(powers) if powers else torch.zeros(1)
    return (10 * power.clamp_min(1e-20).log10()).clamp_min(FLOOR)
