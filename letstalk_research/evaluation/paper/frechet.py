"""Frechet distance of two sets of features (Heusel et al. 2017, arXiv 1706.08500), summed up as they come."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Moments", "frechet_distance"]


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
