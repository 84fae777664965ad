"""A noise gate: pauses become digital silence, so that room noise does not move the mouth."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from ...errors import ConfigError

STEP_SECONDS = 0.01  # of the level meter, and the length of a ramp


def gate_silence(
    waveform: Tensor, sample_rate: int, threshold_db: float = -60.0, hold_seconds: float = 0.15
) -> Tensor:
    """Replace what is quieter than the threshold by zeros: (channels, samples) -> the same, float32.

    The level is the root mean square over 10 ms and all channels, in dB of full scale. The gate opens
    `hold_seconds` before sound and closes as long after it, so quiet beginnings and ends of words stay and gaps of
    less than twice that are never cut. It fades over 10 ms, so no click arises. `-inf` leaves everything as it is.
    Raises: ConfigError.
    """
    if waveform.ndim != 2 or waveform.shape[-1] == 0:
        raise ConfigError(f"waveform has shape {list(waveform.shape)}; needs (channels, samples)")
    if threshold_db > 0 or hold_seconds < 0 or sample_rate < 1:
        raise ConfigError(
            f"threshold_db={threshold_db} must be 0 or less, hold_seconds={hold_seconds} 0 or more and"
            f" sample_rate={sample_rate} positive"
        )
    waveform = waveform.float()
    threshold = 10 ** (threshold_db / 20)
    if threshold == 0:
        return waveform
    step = max(1, round(STEP_SECONDS * sample_rate))
    samples = waveform.shape[-1]
    padded = F.pad(waveform, (0, -samples % step))
    power = reduce(padded.square(), "c (n step) -> n", "mean", step=step)
    loud = rearrange((power >= threshold**2).float(), "n -> 1 1 n")
    reach = round(hold_seconds / STEP_SECONDS) + 1  # and one for the ramp
    gain = F.max_pool1d(loud, 2 * reach + 1, stride=1, padding=reach)
    if gain.min() == 1:
        return waveform
    # Linear between the middles of steps: a fade of one step.
    gain = F.interpolate(gain, scale_factor=float(step), mode="linear", align_corners=False)
    return waveform * rearrange(gain, "1 1 n -> 1 n")[:, :samples]
