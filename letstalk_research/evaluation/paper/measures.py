"""The papers' metrics, each fed one pair of videos after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.networks.face_points import LIPS

from ..intervals import Interval, bootstrap
from ..metrics import psnr
from .networks import IResNet, aligned_faces
from .pairs import Clip, Pair
from .syncnet import SyncNet, sync_crops, sync_scores

CLIP_FRAMES = 16  # of one feature of FVD
EVERY = 5  # frames: identity hardly changes faster
LANDMARK_SIDE = 256  # pixels that distances are scaled to
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


class Measure(Protocol):
    """One or more values over all pairs."""

    def add(self, pair: Pair) -> None: ...

    def values(self) -> Mapping[str, Interval]: ...


class Frechet:
    """FID, or with `frames` > 1 FVD: features (n, d) of pictures (n, h, w, 3) or clips (n, frames, h, w, 3)."""

    def __init__(self, name: str, features: Callable[[Tensor], Tensor], frames: int = 1, batch: int = 8) -> None:
        self.name, self.features, self.frames, self.batch = name, features, frames, batch
        self.made, self.truth = Moments(), Moments()

    def add(self, pair: Pair) -> None:
        for moments, clip in ((self.made, pair.made), (self.truth, pair.truth)):
            whole = clip.frames[: len(clip.frames) // self.frames * self.frames]
            items = whole if self.frames == 1 else whole.unflatten(0, (-1, self.frames))
            for part in items.split(self.batch) if len(items) else ():
                moments.update(self.features(part))

    def values(self) -> Mapping[str, Interval]:
        value = frechet_distance(self.made, self.truth)
        return {self.name: Interval(value, math.nan, math.nan, self.made.count if math.isfinite(value) else 0)}


class _PerPair:
    """Values of single pairs, of which the mean is reported."""

    names: tuple[str, ...]

    def __init__(self) -> None:
        self._found: list[tuple[float, ...]] = []

    def measure(self, pair: Pair) -> tuple[float, ...]:
        raise NotImplementedError

    def add(self, pair: Pair) -> None:
        self._found.append(self.measure(pair))

    def values(self) -> Mapping[str, Interval]:
        columns = zip(*self._found, strict=True)
        return {name: bootstrap(list(column)) for name, column in zip(self.names, columns, strict=True)}


class Pixels(_PerPair):
    """Means over frames."""

    names = ("PSNR", "SSIM")

    def measure(self, pair: Pair) -> tuple[float, ...]:
        frames = list(zip(pair.made.frames, pair.truth.frames, strict=True))
        return tuple(float(np.mean([f(a, b) for a, b in frames])) for f in (psnr, ssim))


class Landmarks(_PerPair):
    """Landmark distance (Chen et al. 2018, arXiv 1803.10404), in pixels of a frame 256 high.

    Mean distance of points, the middle of each group laid on that of the truth, over frames with a face in both.
    """

    names = ("LMD, mouth", "LMD, face")

    def measure(self, pair: Pair) -> tuple[float, ...]:
        both = pair.made.found & pair.truth.found
        if not both.any():
            return math.nan, math.nan
        scale = LANDMARK_SIDE / pair.made.frames.shape[1]
        found = []
        for group in (sorted(set(LIPS)), list(range(468))):
            a, b = (clip.points[both][:, group] * scale for clip in (pair.made, pair.truth))
            apart = (a - a.mean(1, keepdims=True)) - (b - b.mean(1, keepdims=True))
            found.append(float(np.linalg.norm(apart, axis=-1).mean()))
        return tuple(found)


class Identity(_PerPair):
    """Cosine of the embeddings of every fifth generated frame and of the first frame of the truth with a face."""

    names = ("CSIM",)

    def __init__(self, network: IResNet) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def measure(self, pair: Pair) -> tuple[float, ...]:
        made, first = np.flatnonzero(pair.made.found)[::EVERY], np.flatnonzero(pair.truth.found)[:1]
        if not len(made) or not len(first):
            return (math.nan,)
        device = next(self.network.parameters()).device
        rows = ((pair.made, made), (pair.truth, first))
        faces = [aligned_faces(clip.frames[at], clip.points[at]) for clip, at in rows]
        ours, own = (torch.cat([self.network(p.to(device)) for p in f.split(16)]) for f in faces)
        return (float(F.cosine_similarity(ours, own).mean()),)


class Sync(_PerPair):
    """SyncNet's confidence and distance, also of the truth, which no model reaches without luck."""

    names = ("Sync-C", "Sync-D", "Sync-C, truth", "Sync-D, truth")

    def __init__(self, network: SyncNet) -> None:
        super().__init__()
        self.network = network

    def measure(self, pair: Pair) -> tuple[float, ...]:
        return (*self._scores(pair.made), *self._scores(pair.truth))

    def _scores(self, clip: Clip) -> tuple[float, float]:
        if clip.waveform is None or clip.found.mean() < 0.5:
            return math.nan, math.nan
        return sync_scores(self.network, sync_crops(clip.frames, clip.points), clip.waveform)[:2]


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) of (h, w, 3) uint8: Gaussian window of 11, mean over colours."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = (torch.outer(line, line) / line.sum() ** 2).expand(3, 1, -1, -1)

    def blurred(x: Tensor) -> Tensor:
        return F.conv2d(x[None], kernel, groups=3)

    x, y = (p.movedim(-1, 0).double() for p in (a, b))
    mean_x, mean_y = blurred(x), blurred(y)
    spread_x, spread_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    joint = blurred(x * y) - mean_x * mean_y
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * joint + c2)
    return float((above / ((mean_x**2 + mean_y**2 + c1) * (spread_x + spread_y + c2))).mean())


class Moments:
    """Mean and covariance of features, in float64; memory does not depend on their number."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | float = 0.0
        self._products: Tensor | float = 0.0

    def update(self, features: Tensor) -> None:
        """Take features (n, d)."""
        x = features.double().cpu()
        self.count += len(x)
        self._sum = self._sum + x.sum(0)
        self._products = self._products + x.T @ x

    @property
    def mean(self) -> Tensor:
        return torch.as_tensor(self._sum) / self.count

    @property
    def covariance(self) -> Tensor:
        """Unbiased (d, d)."""
        products = torch.as_tensor(self._products)
        return (products - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)); NaN for fewer than two features on a side.

    The trace of the root of A B is the sum of the roots of its eigenvalues, which are those of
    A^(1/2) B A^(1/2): symmetric, so that nothing complex or negative can come of rounding.
    """
    if min(a.count, b.count) < 2:
        return math.nan
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    roots = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt()
    apart = (a.mean - b.mean).square().sum()
    return max(0.0, float(apart + a.covariance.trace() + b.covariance.trace() - 2 * roots.sum()))
