"""Encoding and decoding with bounded memory: few frames at a time, and large frames in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...errors import ConfigError
from ..configs import AutoencoderConfig


class _Autoencoder(Protocol):
    config: AutoencoderConfig

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Side of the square tiles and the overlap of neighbours, both in image pixels."""

    tile: int = 512
    overlap: int = 128

    def cells(self, factor: int) -> tuple[int, int]:
        """Tile and overlap in latent positions. Raises: ConfigError if they do not fit the factor."""
        if self.tile < factor or self.tile % factor or self.overlap % factor:
            raise ConfigError(
                f"tile={self.tile} and overlap={self.overlap} pixels must be multiples of {factor}, the factor"
                " of this autoencoder"
            )
        if not 0 <= self.overlap < self.tile:
            raise ConfigError(f"overlap={self.overlap} must be smaller than tile={self.tile} and not negative")
        return self.tile // factor, self.overlap // factor


def map_frames(function: Callable[[Tensor], Tensor], x: Tensor, batch: int) -> Tensor:
    """Apply `function` to at most `batch` frames at a time: (n, …) -> (n, …).

    The result is written into one tensor, so the peak is the result plus one batch.
    Raises: ConfigError if there is no frame or `batch` is not positive.
    """
    if batch < 1:
        raise ConfigError(f"batch={batch} frames must be at least 1")
    if x.shape[0] == 0:
        raise ConfigError("there are no frames to encode or decode")
    out: Tensor | None = None
    for start in range(0, x.shape[0], batch):
        part = function(x[start : start + batch])
        if part.shape[0] == x.shape[0]:
            return part
        if out is None:
            out = part.new_empty((x.shape[0], *part.shape[1:]))
        out[start : start + batch] = part
    assert out is not None
    return out


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles along one axis start. All are full; the last ends at the edge and may overlap more."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def tiled_encode(autoencoder: _Autoencoder, x: Tensor, tiling: Tiling | None = None) -> Tensor:
    """`encode` in tiles: (n, 3, H, W) -> (n, C, H/f, W/f). An image that fits one tile is encoded as a whole."""
    factor = autoencoder.config.spatial_factor
    if x.shape[-2] % factor or x.shape[-1] % factor:
        return autoencoder.encode(x)  # which names the size and the factor
    return _map_tiles(autoencoder.encode, x, *(tiling or Tiling()).cells(factor), unit_in=factor, unit_out=1)


def tiled_decode(autoencoder: _Autoencoder, z: Tensor, tiling: Tiling | None = None) -> Tensor:
    """`decode` in tiles: (n, C, h, w) -> (n, 3, h*f, w*f). Latents that fit one tile are decoded as a whole."""
    factor = autoencoder.config.spatial_factor
    return _map_tiles(autoencoder.decode, z, *(tiling or Tiling()).cells(factor), unit_in=1, unit_out=factor)


def _map_tiles(
    function: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, *, unit_in: int, unit_out: int
) -> Tensor:
    """Apply `function` tile by tile and blend. `tile` and `overlap` count latent positions, one of which is
    `unit_in` wide in the input and `unit_out` in the output.

    Every output position is a weighted mean of the tiles that cover it, with weights that rise linearly from a
    tile's inner edges: no seam, and where all tiles agree the result is theirs.
    """
    height, width = x.shape[-2] // unit_in, x.shape[-1] // unit_in
    rows, columns = tile_starts(height, tile, overlap), tile_starts(width, tile, overlap)
    if len(rows) == len(columns) == 1:
        return function(x)
    total: Tensor | None = None
    weights = torch.zeros(height * unit_out, width * unit_out, device=x.device)
    dtype = x.dtype
    for row in rows:
        for column in columns:
            inside = _window(row, tile, unit_in), _window(column, tile, unit_in)
            outside = _window(row, tile, unit_out), _window(column, tile, unit_out)
            part = function(x[..., inside[0], inside[1]])
            if total is None:
                dtype = part.dtype
                total = torch.zeros(*part.shape[:-2], *weights.shape, device=part.device)  # float32: sums of parts
            down = _ramp(part.shape[-2], overlap * unit_out, row > 0, row < rows[-1], x.device)
            across = _ramp(part.shape[-1], overlap * unit_out, column > 0, column < columns[-1], x.device)
            weight = torch.outer(down, across)
            total[..., outside[0], outside[1]] += part * weight
            weights[outside] += weight
    assert total is not None
    return total.div_(weights).to(dtype)


def _window(start: int, tile: int, unit: int) -> slice:
    return slice(start * unit, (start + tile) * unit)


def _ramp(size: int, overlap: int, rising: bool, falling: bool, device: torch.device) -> Tensor:
    """Weights of one axis of a tile: linear over the overlap at inner edges, 1 elsewhere; never 0."""
    weight = torch.ones(size, device=device)
    slope = (torch.arange(overlap, device=device) + 0.5) / max(overlap, 1)
    if rising:
        weight[:overlap] *= slope
    if falling:
        weight[size - overlap :] *= slope.flip(0)
    return weight
