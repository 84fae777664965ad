"""A photo puppet: everything about a portrait that does not change while it moves, batched over people.

All pictures are made in the portrait's own plane, where its landmarks are. Three layers share the head's pose and
differ near lips and lids: `upper` is the whole picture as the upper lip sees it, `lower` as lower lip and jaw see
it, `lid` as the upper lids see it. Masks say what each of them shows; where upper and lower part, the mouth is
drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .face_maps import FaceMaps, grown_eyes
from .fields import GRID, Head, depth_map, expression_fields, falloff, lid_field
from .geometry import EXTENT, axis_grid
from .glasses import Glasses, draw_glasses
from .matting import head_matte
from .mouth import MOUTH_NUMBERS, Mouth
from .mouth_light import colourfulness, mouth_light
from .own_teeth import find_teeth, lips_at
from .topology import EYES


@dataclass
class Portraits:
    """Faces in their frames. texture (b, 3, T, T) in 0..1 over -EXTENT..EXTENT; points (b, 478, 3), same plane."""

    texture: Tensor
    points: Tensor

    def to(self, device: torch.device | str | None) -> Portraits:
        return Portraits(self.texture.to(device), self.points.to(device))


@dataclass
class Puppets:
    """Portraits ready to move. Maps are (b, c, T, T) pictures like the texture; G fields as in `fields`.

    lips: above the line between the lips, below it, nearness of the upper lip, of the lower one; inside: u, v of
    the mouth and, where a portrait shows teeth, their colour and cover; eyes: cover of the upper lids, opening,
    lashes, logarithm of the light, the same on shut lids; eyeballs: the texture with the eyes grown below lids;
    lids: the texture without lashes, and where these stand up from open lids; shades: folds of a smile, of rounded
    lips, of an open jaw; irises (b, 2, 2), with radius and eye width (b, 2).
    """

    portraits: Portraits
    head: Head
    upper: Tensor
    lower: Tensor
    lid: Tensor
    depth: Tensor
    falloff: Tensor
    pivot: Tensor
    texture: Tensor  # with the alpha of the head as fourth channel
    background: Tensor  # (b, 3, T, T)
    lips: Tensor
    inside: Tensor
    eyes: Tensor
    eyeballs: Tensor
    lids: Tensor
    shades: Tensor
    irises: Tensor
    iris_radius: Tensor
    eye_width: Tensor
    mouth: Mouth
    glasses: Tensor | None = None  # colour and cover (b, 4, T, T)

    def __len__(self) -> int:
        return len(self.texture)


def make_puppets(
    portraits: Portraits,
    mouth_numbers: Tensor | None = None,
    colour: Tensor | None = None,
    glasses: Sequence[Glasses | None] = (),
    *,
    size: int = 256,
    matte: bool = True,
) -> Puppets:
    """Prepare portraits for movement. size: side of the frames in pixels; matte: for heads that turn and shift
    before what is behind them.

    mouth_numbers (b, MOUTH_NUMBERS): standard normal, this person's teeth; colour (b,): 0 for grey pictures, by
    default as they look; glasses: one entry a person, or none at all.
    """
    points, texture = portraits.points, portraits.texture
    b, device = len(points), points.device
    head = Head(points)
    teeth = find_teeth(head, texture)
    head = Head(lips_at(head, teeth), teeth.shown)
    upper, lower, drop, shut = expression_fields(head)
    maps = FaceMaps(head, texture, teeth, shut * drop)
    light, slope, white = mouth_light(head, texture, maps.full(maps.opening))
    mouth = Mouth(
        light,
        slope,
        drop / head.mouth_width,
        2 / size / head.mouth_width,
        points.new_zeros(b, MOUTH_NUMBERS) if mouth_numbers is None else mouth_numbers.to(device),
        colourfulness(head, texture) if colour is None else colour.to(device),
        torch.where(teeth.shown[:, None], teeth.colour, white),
        teeth.shown.to(points.dtype),
    )
    iris = points[:, [list(e.iris) for e in EYES], :2]  # (b, 2, 5, 2)
    q = head.local(points)
    width = torch.stack([(q[:, e.corners[0], 0] - q[:, e.corners[1], 0]).abs() for e in EYES], 1)
    alpha, background = head_matte(texture, head) if matte else (torch.ones_like(texture[:, :1]), texture)
    return Puppets(
        portraits,
        head,
        upper,
        lower,
        lid_field(head),
        depth_map(head),
        _falloff(head, alpha.amin((1, 2, 3)) < 0.5),
        torch.stack([head.middle[:, 0], head.middle[:, 1] + 1.35 * head.half[:, 1]], 1),
        torch.cat([texture, alpha], 1),
        background,
        maps.lips(),
        maps.inside(texture),
        torch.cat([maps.full(torch.stack([maps.cover, maps.opening, maps.lash], 1)), maps.lid_light(texture)], 1),
        grown_eyes(texture, maps.full(maps.opening)),
        maps.lids(width.mean(1) / maps.pixel),
        maps.shades(),
        iris[:, :, 0],
        (iris[:, :, 1:] - iris[:, :, :1]).norm(dim=-1).mean(-1),
        width,
        mouth,
        draw_glasses(head, list(glasses), texture.shape[-1], light) if any(glasses) else None,
    )


def _falloff(head: Head, cut_out: Tensor) -> Tensor:
    """`falloff` on the grid of the fields (b, G, G), none at its edge."""
    grid = axis_grid(GRID, EXTENT, head.points.device)
    edge = 1 - (grid.abs().amax(-1) - 1).clamp(min=0) / (EXTENT - 1)
    return falloff(head, grid, cut_out) * edge.clamp(0, 1)
