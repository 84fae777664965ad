"""How much the clips of a long video still look like its portrait, measured on latents: cheap, and repeatable.

What the autoencoder itself lost of the portrait is no drift: `DriftLog.likeness` holds it beside the scores.
Three scores of each clip, 1 where it is like the portrait: identity (the pattern of the latents), colour (their
means) and sharpness (the energy of their differences from position to position). Only the calmer positions of a
clip count, so that mouth and eyes, which have to move, hardly matter.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor

CALM = 0.6  # part of the positions, the calmest, that count
SCORES = ("identity", "colour", "sharpness")
EPS = 1e-6


@dataclass(frozen=True)
class DriftScore:
    """Each in 0..1; 1 is like the portrait."""

    identity: float
    colour: float
    sharpness: float

    @property
    def lowest(self) -> float:
        return min(self.identity, self.colour, self.sharpness)


def drift_score(latents: Tensor, portrait: Tensor) -> DriftScore:
    """Scores of a clip. Shapes: latents (b, f, c, h, w), portrait (b, c, h, w).

    All over the calm positions. identity: correlation with the portrait, without the mean of each channel. colour:
    exp(-d), d the mean distance of the channels' means in deviations of the portrait. sharpness: ratio of the root
    energies of differences between neighbours, the smaller by the larger.
    """
    portrait = portrait.detach().float()
    latents = latents.detach().to(portrait)
    scale = portrait.std((-2, -1), keepdim=True, correction=0).clamp_min(EPS)
    wanted, clip = portrait / scale, latents / scale.unsqueeze(1)
    motion = clip.var(1, correction=0).mean(1)
    limit = torch.quantile(motion.flatten(1), CALM, dim=1)
    calm = (motion <= rearrange(limit, "b -> b 1 1")).float()
    weight = rearrange(calm / calm.sum((1, 2), keepdim=True), "b h w -> b 1 (h w)")
    a, b = (rearrange(x, "b c h w -> b c (h w)") for x in (wanted, clip.mean(1)))
    mean_a, mean_b = ((x * weight).sum(-1, keepdim=True) for x in (a, b))
    distance = (mean_a - mean_b).abs().mean()
    a, b = (a - mean_a) * weight.sqrt(), (b - mean_b) * weight.sqrt()
    correlation = (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt().clamp_min(EPS)
    energies = _energy(clip, calm).clamp_min(EPS), _energy(wanted.unsqueeze(1), calm).clamp_min(EPS)
    return DriftScore(
        identity=float(correlation.clamp(0, 1)),
        colour=float(torch.exp(-distance)),
        sharpness=float((min(energies) / max(energies)).sqrt()),
    )


def _energy(x: Tensor, calm: Tensor) -> Tensor:
    """Mean square of the differences between calm neighbours: (b, f, c, h, w) and (b, h, w) -> ()."""
    across, down = (reduce(x.diff(dim=d).square(), "b f c h w -> b h w", "mean") for d in (-1, -2))
    beside, below = calm[..., 1:] * calm[..., :-1], calm[:, 1:] * calm[:, :-1]
    total = (across * beside).sum() + (down * below).sum()
    return total / (beside.sum() + below.sum()).clamp_min(1)


@dataclass
class DriftLog:
    """The scores of the clips of a run, in order, and which of them were followed by re-anchoring.

    `likeness`: of the portrait that the scores compare with to the picture itself, 0 to 1; None if nobody looked.
    """

    clips: list[int] = field(default_factory=list)  # indices of the plan
    scores: list[DriftScore] = field(default_factory=list)
    re_anchored: list[int] = field(default_factory=list)
    likeness: float | None = None

    def lowest(self, at: int = -1) -> float:
        """The lowest score of a clip: it can be no more like the portrait than its latents are."""
        score = self.scores[at].lowest
        return score if self.likeness is None else min(score, self.likeness)

    def add(self, clip: int, score: DriftScore, re_anchored: bool) -> None:
        self.clips.append(clip)
        self.scores.append(score)
        if re_anchored:
            self.re_anchored.append(clip)

    def extend(self, other: DriftLog) -> None:
        """Append the clips of another log."""
        self.clips += other.clips
        self.scores += other.scores
        self.re_anchored += other.re_anchored

    def since(self, clip: int) -> DriftLog:
        """The clips from index `clip` of the plan on."""
        at, again = bisect_left(self.clips, clip), bisect_left(self.re_anchored, clip)
        return DriftLog(self.clips[at:], self.scores[at:], self.re_anchored[again:], self.likeness)

    def rows(self) -> list[list[Any]]:
        """JSON values that `from_rows` restores exactly: index, scores, whether the bank was re-anchored."""
        again = set(self.re_anchored)
        return [
            [clip, *(getattr(score, name) for name in SCORES), clip in again]
            for clip, score in zip(self.clips, self.scores, strict=True)
        ]

    @classmethod
    def from_rows(cls, rows: list[list[Any]]) -> DriftLog:
        """Raises: ValueError or TypeError for what `rows` did not write."""
        log = cls()
        for clip, identity, colour, sharpness, again in rows:
            score = DriftScore(float(identity), float(colour), float(sharpness))
            if type(clip) is not int or not all(0 <= getattr(score, name) <= 1 for name in SCORES):
                raise ValueError(f"clip {clip!r:.40}: {score}")
            log.add(clip, score, bool(again))
        return log

    def column(self, name: str) -> list[float]:
        """One score of every clip: "identity", "colour" or "sharpness"."""
        return [float(getattr(score, name)) for score in self.scores]

    def to_dict(self, level: float = 0.0) -> dict[str, Any]:
        """JSON values; empty without clips. Clips are counted from 1, as people do."""
        if not self.scores:
            return {}
        columns = {name: [round(v, 4) for v in self.column(name)] for name in SCORES}
        lowest = [self.lowest(i) for i in range(len(self.scores))]
        return {
            "level": level,
            "first_clip": self.clips[0] + 1,
            "likeness": None if self.likeness is None else round(self.likeness, 4),
            "lowest": round(min(lowest), 4),
            "mean": round(sum(lowest) / len(lowest), 4),
            "re_anchored": [clip + 1 for clip in self.re_anchored],
            **columns,
        }
