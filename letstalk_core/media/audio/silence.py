"""A noise gate: pauses become digital silence, so that room noise does not move the mouth."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from ...errors import ConfigError

STEP_SECONDS = 0.01  # of the level meter, and the length of a ramp
HOLD_STEPS = 15


def gate_silence(waveform: Tensor, sample_rate: int, threshold_db: float = -60.0) -> Tensor:
    """Replace what is quieter than the threshold by zeros: (channels, samples) -> the same, float32.

    The level is the root mean square over 10 ms and all channels, in dB of full scale. The gate opens 0.15 s
    before sound and closes as long after it, so quiet beginnings and ends of words stay and gaps of less than
    twice that are never cut. It fades over 10 ms, so no click arises. `-inf` leaves everything as it is.
    Raises: ConfigError.
    """
    if waveform.ndim != 2 or waveform.shape[-1] == 0:
        raise ConfigError(f"waveform has shape {list(waveform.shape)}; needs (channels, samples)")
    if threshold_db > 0 or sample_rate < 1:
        raise ConfigError(f"threshold_db={threshold_db} must be 0 or less and sample_rate={sample_rate} positive")
    waveform = waveform.float()
    threshold = 10 ** (threshold_db / 20)
    if threshold == 0:
        return waveform
    step = max(1, round(STEP_SECONDS * sample_rate))
    samples = waveform.shape[-1]
    padded = F.pad(waveform, (0, -samples % step))
    power = reduce(padded.square(), "c (n step) -> n", "mean", step=step)
    loud = rearrange((power >= threshold**2).float(), "n -> 1 1 n")
    reach = HOLD_STEPS + 1  # and one for the ramp
    gain = F.max_pool1d(loud, 2 * reach + 1, stride=1, padding=reach)
    if gain.min() == 1:
        return waveform
    # Linear between the middles of steps: a fade of one step.
    gain = F.interpolate(gain, scale_factor=float(step), mode="linear", align_corners=False)
    return waveform * rearrange(gain, "1 1 n -> 1 n")[:, :samples]
