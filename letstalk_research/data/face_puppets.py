"""Heads of photo puppets, for the second looks at lips and eyes: mouths open as far as they go, lids shut.

Stills hardly ever show such mouths and lids, and a face finder that has not seen them takes an open mouth for a
closed one. A puppet's points are known exactly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from letstalk_core.media.puppet.render import EXTRAS, Pose, render
from letstalk_core.networks.face_points import POINTS
from letstalk_core.networks.motion_channels import LIPS, MOTION, POSE

from .face_heads import SIDE, VALIDATION, save_heads
from .photo.casting import cast, cast_still, make_people
from .photo.stills import load_stills
from .photo.truth import landmarks

POSES = 6  # of one person
WIDEST = 2.4  # jaw, where speech has 1: a scream
AT_REST = 0.3  # of the mouths
HELD_OUT = 12  # heads for training to one for validation


def make_puppet_heads(portraits: str | Path, folder: Path, count: int, seed: int) -> None:
    """Write `count` heads of puppets, and some of held-out people into `validation`; what exists stays.

    Raises: MediaError.
    """
    for place, share, held_out in ((folder, count, False), (folder / VALIDATION, count // HELD_OUT, True)):
        path = place / "heads-puppets.safetensors"
        if not path.is_file():
            write_puppets(portraits, path, share, np.random.default_rng([seed, 3, held_out]), held_out=held_out)


def write_puppets(
    portraits: str | Path, path: Path, count: int, rng: Generator, *, held_out: bool = False
) -> None:
    """A file of heads (`face_heads`), of mixed people or of the held-out stills. Raises: MediaError."""
    stills = load_stills(portraits, held_out=held_out)
    pictures, points, shut = [], [], []
    for n in range(-(-count // POSES)):
        person = cast_still(stills[n % len(stills)], rng) if held_out else cast(stills, rng)
        motion, extras = random_faces(rng, POSES)
        pose = Pose(make_people([person], size=SIDE), motion[None], extras[None])
        flat = (landmarks(pose)[0] + 1) * (SIDE / 2)
        depth = pose.in_space(pose.puppets.head.points.mT[:, None])[0, :, 2, :, None] * (SIDE / 2)
        pictures.append((render(pose, size=SIDE)[0] * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1))
        points.append(torch.cat([flat, depth], -1))
        shut.append(motion[:, MOTION.index("blink")])
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = (torch.cat(part)[:count] for part in (pictures, points, shut))
    save_heads(path, *parts, drawn=False, sure=torch.ones(1, POINTS))


def random_faces(rng: Generator, count: int) -> tuple[Tensor, Tensor]:
    """Motion (count, len(MOTION)) and extras (count, len(EXTRAS)) of faces that do anything."""
    share = {name: rng.random(count) for name in (*LIPS, "smile", "brow", "blink")}
    sometimes = {name: share[name] * (rng.random(count) < 0.5) for name in share}
    columns = dict.fromkeys(MOTION, np.zeros(count)) | sometimes
    columns |= {name: np.full(count, rest) for name, rest in POSE.items()}
    columns["jaw"] = share["jaw"] * rng.choice([0.0, 1.0, WIDEST], count, p=[AT_REST, 0.4, 0.6 - AT_REST])
    columns["round"] = sometimes["round"] * (columns["wide"] == 0)
    columns["smile"] = 0.6 * sometimes["smile"]
    columns["blink"] = np.where(rng.random(count) < 0.25, 1.0, sometimes["blink"])
    for name, spread in {"gaze_x": 0.4, "gaze_y": 0.3, "yaw": 0.5, "pitch": 0.4, "roll": 0.08}.items():
        columns[name] = rng.normal(0, spread, count).clip(-2.5 * spread, 2.5 * spread)
    extras = {name: rng.random(count) * (rng.random(count) < 0.25) for name in EXTRAS}
    extras["teeth_kept"] = (rng.random(count) < 0.25).astype(float)
    for name in LIPS:
        columns[name] = columns[name] * (1 - extras["teeth_kept"])
    rows = (np.stack([table[name] for name in names], 1) for table, names in ((columns, MOTION), (extras, EXTRAS)))
    motion, more = (torch.from_numpy(row.astype(np.float32)) for row in rows)
    return motion, more
