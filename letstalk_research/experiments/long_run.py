"""More than a hundred clips in a row: does the picture drift, and do the seams between clips show?

What a clip costs most is decoding, so distances are measured on latents, all of them, and only one frame of each
clip is decoded and read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..evaluation.metrics import cell_colors, colour_error, correlation, gradient_energy
from ..evaluation.store import ClipResult
from .people import FPS, Codec, Person
from .speaking import SHOWN, Speaker
from .variants import DataFacts

__all__ = ["LATENT_SERIES", "PICTURE_SERIES", "measure_long_run"]

LATENT_SERIES = ("distance", "seam", "movement")
PICTURE_SERIES = ("colour error", "shape error", "sharpness")

Array = NDArray[np.float64]


def measure_long_run(speaker: Speaker, people: Sequence[Person], codec: Codec, facts: DataFacts) -> ClipResult:
    """Curves (people, clips):

    - distance of a clip's latents from the portrait's, 1 being that of true frames;
    - seam: the step from the clip before into this one over the mean step within clips (NaN for the first clip);
    - movement: the mean step within the clip, 1 being that of true frames;
    - colour error, shape error, sharpness of the decoded frame, 1 being those of the portrait's round trip.

    Metrics: lip correlations over the decoded frames of all people together; the same per person as curves.
    """
    frames = len(people[0].truth)
    clip = speaker.config.clip_frames
    shown = clip // 2  # of each clip, decoded
    units = [_pictures(person, codec.decode(person.portrait[None])) for person in people]
    distance: list[Array] = []
    step_in: list[Array] = []
    step_over: list[Array] = []
    pictures: list[Array] = []
    readings: list[Array] = []
    last: Tensor | None = None
    for latents in speaker.clips(people, frames, 500):
        portrait = torch.stack([p.portrait for p in people])[:, None]
        distance.append(_rms(latents - portrait))
        step_in.append(_rms(latents.diff(dim=1)))
        step_over.append(np.full(len(people), np.nan) if last is None else _rms(latents[:, :1] - last))
        last = latents[:, -1:]
        decoded = [codec.decode(own[shown : shown + 1]) for own in latents]
        pictures.append(np.stack([_pictures(p, d) / u for p, d, u in zip(people, decoded, units, strict=True)]))
        readings.append(np.concatenate([p.reader.read(d) for p, d in zip(people, decoded, strict=True)]))
    inside = np.stack(step_in, 1)
    found = {
        "distance": np.stack(distance, 1) / facts.from_portrait,
        "seam": np.stack(step_over, 1) / np.maximum(inside.mean(1, keepdims=True), 1e-9),
        "movement": inside / facts.between_frames,
    }
    looks, read = np.stack(pictures, 1), np.stack(readings, 1)
    curves = {name: found[name] for name in LATENT_SERIES}
    curves |= {name: looks[:, :, i] for i, name in enumerate(PICTURE_SERIES)}
    for i, lip in enumerate(SHOWN):
        curves[f"lips {lip}"] = np.array(
            [correlation(r[:, i], p.truth[shown::clip, i]) for r, p in zip(read, people, strict=True)]
        )
    seconds = len(people) * frames / FPS
    return ClipResult({"seconds per second": speaker.seconds / seconds}, curves)


def _rms(x: Tensor) -> Array:
    """Root mean square of each person's numbers: (people, ...) -> (people,)."""
    return np.asarray(x.float().square().flatten(1).mean(1).sqrt().double().cpu().numpy())


def _pictures(person: Person, frame: Tensor) -> Array:
    """PICTURE_SERIES of one frame (1, h, w, 3), not smaller than a millionth."""
    colour = colour_error(cell_colors(frame), cell_colors(person.trial.portrait[None])[0], person.calm)
    values = [colour[0], person.reader.landmark_error(frame)[0], gradient_energy(frame)[0]]
    return np.maximum(np.array(values, np.float64), 1e-6)
