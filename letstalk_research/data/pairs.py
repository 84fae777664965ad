"""A portrait and two neighbouring frames of its person: what carrying detail along is trained and measured on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.pixels import from_unit, to_unit

from .clips import FrameSampler, flip_regions
from .manifest import ClipRecord

OWN_PORTRAIT = 0.7  # part of the pairs whose reference is a portrait of the clip, and not another frame
TURN, SHIFT, ZOOM = 0.05, 0.05, 0.06  # deviations of another framing of a reference: radians, half sides
UNKNOWN = torch.full((2, 2, 64, 64), torch.nan)
Pair = dict[str, Tensor]


def draw_pairs(
    sampler: FrameSampler,
    records: Sequence[ClipRecord],
    count: int,
    generator: torch.Generator,
    *,
    flip: bool,
    reframe: float = 0.0,
) -> Pair:
    """Random pairs: "portraits" (b, h, w, 3) and "frames" (b, 2, h, w, 3) uint8, "regions" (b, 2, 3, 4) of them,
    "flow" (b, 2, 2, 64, 64) from frames to portrait in half pictures, NaN where nobody knows it.

    `reframe`: part of the references that are turned, shifted and zoomed a little. A draw depends on the generator
    and the records only. Raises: MediaError if no clip can be read.
    """

    def one() -> Pair:
        u = torch.rand(6, generator=generator).tolist()
        turn = torch.randn(4, generator=generator)
        pair = _one(sampler, records[int(u[0] * len(records))], u[1], u[2], u[3])
        if flip and u[4] < 0.5:
            pair = _mirrored(pair)
        if u[5] < reframe:
            pair |= {"portraits": _reframed(pair["portraits"], turn), "flow": UNKNOWN}
        return pair

    pairs = sampler.several(records, count, one)
    return {k: torch.stack([p[k] for p in pairs]) for k in pairs[0]}


def _one(sampler: FrameSampler, record: ClipRecord, own: float, place: float, other: float) -> Pair:
    clip = sampler.clip(record)
    if clip.frame_count < 2:
        raise MediaError(f"{clip.path}: has one frame; make the clip again")
    first = int(place * (clip.frame_count - 1))
    flow = UNKNOWN
    if own < OWN_PORTRAIT:
        portraits = clip.portraits()
        index = int(other * len(portraits))
        portrait = portraits[index]
        if clip.has("flow"):
            flow = clip.flow(index, first, 2)
    else:
        portrait = clip.frames(int(other * clip.frame_count), 1)[0]
    frames = clip.frames(first, 2)
    for image in (frames[0], portrait):
        sampler.check_size(clip, image)
    return {"portraits": portrait, "frames": frames, "regions": clip.regions(first, 2), "flow": flow}


def _mirrored(pair: Pair) -> Pair:
    return {
        "portraits": pair["portraits"].flip(1),
        "frames": pair["frames"].flip(2),
        "regions": flip_regions(pair["regions"], pair["portraits"].shape[1]),
        "flow": pair["flow"].flip(-1) * torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1),
    }


def _reframed(picture: Tensor, noise: Tensor) -> Tensor:
    angle, zoom = float(noise[0]) * TURN, math.exp(float(noise[1]) * ZOOM)
    cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
    matrix = torch.tensor([[cos, -sin, float(noise[2]) * SHIFT], [sin, cos, float(noise[3]) * SHIFT]])
    x = to_unit(picture[None])
    grid = F.affine_grid(matrix[None], list(x.shape), align_corners=False)
    return from_unit(F.grid_sample(x, grid, align_corners=False, padding_mode="reflection"))[0]
