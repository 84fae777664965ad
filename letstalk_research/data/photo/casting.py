"""Who is in a clip: which still is the host, which the donor, how the face is framed, changed and photographed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from letstalk_core.media.puppet.glasses import Glasses, sample_glasses
from letstalk_core.media.puppet.mouth import MOUTH_NUMBERS
from letstalk_core.media.puppet.puppet import Portraits, Puppets, make_puppets
from letstalk_core.media.puppet.topology import TOP
from letstalk_core.networks.face_points import CHIN, OVAL

from .degrade import Wear, apply_wear, sample_wear
from .people import SHAPE_NUMBERS, Framing, combine, frame_stills, mirrored, reshape
from .stills import OPEN_LIPS, Still

MIXED_SHARE = 0.8
GLASSES_SHARE = 1 / 8
SMALLEST_FACE, LARGEST_FACE = 0.40, 0.68
OVERHANG = 0.07  # of the frame's side may lie outside of the picture at each edge
SKIN_STEPS, YAW_APART = 1, 9.0  # how different host and donor may be


@dataclass(frozen=True)
class Person:
    """All that is chosen about one person; the same choice makes the same person."""

    host: Still
    donor: Still | None
    amount: float
    shape: float
    framing: Framing
    donor_mirrored: bool
    mirrored: bool
    shape_numbers: tuple[float, ...]
    mouth_numbers: tuple[float, ...]
    wear: Wear
    glasses: Glasses | None = None

    @property
    def name(self) -> str:
        return self.host.id if self.donor is None else f"{self.host.id}+{self.donor.id}"


def cast(stills: Sequence[Still], rng: np.random.Generator) -> Person:
    """Choose a person who exists nowhere out of the stills for training."""
    host = stills[int(rng.integers(len(stills)))]
    fitting = [s for s in stills if _fits(host, s)]
    donor = fitting[int(rng.integers(len(fitting)))] if fitting and rng.random() < MIXED_SHARE else None
    wear = sample_wear(rng)
    wears = not host.glasses and rng.random() < GLASSES_SHARE
    return Person(
        host,
        donor,
        amount=float(rng.uniform(0.5, 1.0)),
        shape=float(rng.uniform(0.5, 1.0)),
        framing=sample_framing(host, rng),
        donor_mirrored=bool(donor is not None and host.yaw * donor.yaw < 0),
        mirrored=bool(rng.random() < 0.5),
        shape_numbers=tuple(rng.normal(size=SHAPE_NUMBERS).tolist()),
        mouth_numbers=tuple(rng.normal(size=MOUTH_NUMBERS).tolist()),
        wear=wear,
        glasses=sample_glasses(rng, grey=wear.grey) if wears else None,
    )


def cast_still(still: Still, rng: np.random.Generator) -> Person:
    """A still as it is, framed at random: for measuring on people held out."""
    return Person(
        still,
        None,
        0.0,
        0.0,
        sample_framing(still, rng),
        False,
        False,
        (0.0,) * SHAPE_NUMBERS,
        tuple(rng.normal(size=MOUTH_NUMBERS).tolist()),
        Wear(),
    )


def _fits(host: Still, donor: Still) -> bool:
    """Whether the donor's inner face looks right in the host's head.

    Glasses would be cut; a beard under a face without one, or teeth shining through closed lips, look odd.
    """
    turned = abs(abs(host.yaw) - abs(donor.yaw))
    return (
        donor.id != host.id
        and not (host.glasses or donor.glasses)
        and host.sex == donor.sex
        and host.beard == donor.beard
        and abs(host.skin - donor.skin) <= SKIN_STEPS
        and turned <= YAW_APART
        and (host.lip_gap > OPEN_LIPS) == (donor.lip_gap > OPEN_LIPS)
    )


def sample_framing(still: Still, rng: np.random.Generator) -> Framing:
    """Face size and place at random, as far as the picture reaches."""
    points = still.points
    side = float(still.size or max(points[:, :2].max(0)))
    height = float(np.linalg.norm(points[CHIN] - points[TOP]))
    face = max(rng.uniform(SMALLEST_FACE, LARGEST_FACE), height / side / (1 + 2 * OVERHANG))
    frame = height / face  # its side in pixels of the picture
    oval = points[list(OVAL), :2]
    centre = (oval.max(0) + oval.min(0)) / 2
    place = []
    for wanted, c in zip(rng.normal((0.0, 0.10), (0.06, 0.06)), centre, strict=True):
        most = 2 * (c / frame + OVERHANG) - 1
        least = 1 - 2 * ((side - c) / frame + OVERHANG)
        place.append(float(np.clip(wanted, least, most)) if least <= most else (least + most) / 2)
    return Framing(face, place[0], place[1], float(np.clip(rng.normal(0, 2.0), -5, 5)))


def make_people(people: Sequence[Person], *, size: int = 256, device: torch.device | str | None = None) -> Puppets:
    """Puppets of chosen people, all at once. Raises: MediaError for a picture that cannot be read."""
    faces = frame_stills([p.host for p in people], [p.framing for p in people]).to(device)
    mixed = [i for i, p in enumerate(people) if p.donor is not None]
    if mixed:
        donors = frame_stills(
            [donor for p in people if (donor := p.donor) is not None], [people[i].framing for i in mixed]
        ).to(device)
        _mirror(donors, [people[i].donor_mirrored for i in mixed])
        amount, shape = (
            torch.tensor([getattr(people[i], name) for i in mixed], device=donors.texture.device)
            for name in ("amount", "shape")
        )
        found = combine(Portraits(faces.texture[mixed], faces.points[mixed]), donors, amount, shape)
        faces.texture[mixed], faces.points[mixed] = found.texture, found.points
    numbers = torch.tensor([p.shape_numbers for p in people], device=faces.texture.device)
    if bool(numbers.any()):
        faces = reshape(faces, numbers)
    _mirror(faces, [p.mirrored for p in people])
    faces.texture = torch.stack([apply_wear(t, p.wear) for t, p in zip(faces.texture, people, strict=True)])
    return make_puppets(
        faces,
        torch.tensor([p.mouth_numbers for p in people]),
        torch.tensor([0.0 if p.wear.grey else min(1.0, p.wear.saturation) for p in people]),
        [p.glasses for p in people],
        size=size,
    )


def _mirror(people: Portraits, chosen: Sequence[bool]) -> None:
    which = [i for i, yes in enumerate(chosen) if yes]
    if which:
        turned = mirrored(Portraits(people.texture[which], people.points[which]))
        people.texture[which], people.points[which] = turned.texture, turned.points
