"""When the tongue shows between the teeth: raised behind the upper ones, or laid on the lower ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..synthetic.speech import Utterance

RAISED = {**dict.fromkeys("lɫ", 1.0), **dict.fromkeys("nɳ", 0.9), **dict.fromkeys("tdʈɖ", 0.75), "ɾ": 0.6}
OUT = dict.fromkeys("θð", 1.0)
RAMP_S = 0.045  # the tongue is quicker than the jaw


def tongue_curves(utterance: Utterance, fps: float, frames: int) -> NDArray[np.float32]:
    """How far the tip is up, and out, at the centre of each frame: (frames, 2) in 0..1."""
    times = (np.arange(frames) + 0.5) / fps
    curves = np.zeros((frames, 2), np.float32)
    for phoneme in utterance.phonemes:
        for column, table in enumerate((RAISED, OUT)):
            amount = max((table.get(sign, 0.0) for sign in phoneme.symbol), default=0.0)
            if amount:
                away = np.maximum(np.maximum(phoneme.start_s - times, times - phoneme.end_s), 0) / RAMP_S
                near = np.clip(1 - away, 0, 1)
                curves[:, column] = np.maximum(curves[:, column], amount * near * near * (3 - 2 * near))
    return curves
