"""Folders of talking clips of photo puppets, in the format of the drawn ones, with the flow to the portrait.

Beside the tensors of `data.clips` a clip has "flow" float16 (p, t, 2, 64, 64): where what a frame shows
is seen in each portrait, in widths of the picture; "landmarks" float16 (t, 478, 2) and "portrait_landmarks" (p,
478, 2), -1..1 over the picture. One clip in five is drawn as before, so that drawn and painted portraits keep
working. Who is in clip `index`, and how they move, depends on (seed, split, index) alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.files import atomic_path
from letstalk_core.media.audio.alignment import SAMPLES_PER_FRAME
from letstalk_core.media.puppet.render import EXTRAS, Pose, render
from letstalk_core.networks.motion_channels import MOTION
from letstalk_core.protocols import Device

from ..manifest import ClipRecord, Manifest, append_records
from ..synthetic.dataset import FPS, SPLIT_SEEDS, DrawnClip, draw_clip, write_clip
from ..synthetic.texts import Speaker
from .casting import Person, cast, cast_still, make_people
from .stills import OPEN_LIPS, Still, load_stills
from .tongue import tongue_curves
from .truth import flow, landmarks, regions

DRAWN_EVERY = 5  # one clip in so many is drawn
KEPT_TEETH = 0.5  # of the parted lips stay parted in the portrait
LIPS = ("jaw", "wide", "round", "teeth")


def choose_person(stills: Sequence[Still], seed: int, split: str, index: int) -> Person:
    """The person of a clip. In the split "val" each held-out still takes its turn, unchanged."""
    rng = np.random.default_rng([seed, SPLIT_SEEDS[split], index, 10])
    return cast(stills, rng) if split == "train" else cast_still(stills[index % len(stills)], rng)


def photo_clip(
    person: Person,
    clip: DrawnClip,
    *,
    turn: float = 1.0,
    size: int = 256,
    with_flow: bool = True,
    device: Device = None,
    rng: np.random.Generator | None = None,
) -> dict[str, Tensor]:
    """Tensors of one clip. turn: factor on yaw and pitch; at 1 the head turns by up to 8 degrees."""
    rng = np.random.default_rng(0) if rng is None else rng
    motion, still_motion = (
        torch.from_numpy(np.array(m, np.float32, order="C")) for m in (clip.motion, clip.portrait_motion)
    )
    for name in ("yaw", "pitch"):
        motion[:, MOTION.index(name)] *= turn
    frames, count = len(motion), len(still_motion)
    extras, still_extras = torch.zeros(frames, len(EXTRAS)), torch.zeros(count, len(EXTRAS))
    tongue = tongue_curves(clip.utterance, FPS, clip.first_frame + frames)[clip.first_frame :]
    extras[:, :2] = torch.from_numpy(tongue)
    if person.host.lip_gap > OPEN_LIPS and rng.random() < KEPT_TEETH:
        still_extras[:, EXTRAS.index("teeth_kept")] = 1.0
        still_motion[:, [MOTION.index(name) for name in LIPS]] = 0.0
    puppets = make_people([person], size=size, device=device)
    place = puppets.texture.device
    whole = torch.cat([still_motion, motion])[None].to(place), torch.cat([still_extras, extras])[None].to(place)
    pose = Pose(puppets, *whole)
    pictures = (render(pose, size=size)[0] * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).cpu()
    points = landmarks(pose)
    boxes = regions(points, size)[0].cpu()
    points = points[0].half().cpu()
    tensors = {
        "frames": pictures[count:].contiguous(),
        "portraits": pictures[:count].contiguous(),
        "audio": _audio(clip),
        "motion": motion.half(),
        "portrait_motion": still_motion.half(),
        "regions": boxes[count:].contiguous(),
        "portrait_regions": boxes[:count].contiguous(),
        "landmarks": points[count:].contiguous(),
        "portrait_landmarks": points[:count].contiguous(),
    }
    if with_flow:
        tensors["flow"] = flow(pose[count:], pose[:count])[0].half().cpu()
    return tensors


def _audio(clip: DrawnClip) -> Tensor:
    wave = torch.from_numpy(clip.utterance.waveform)
    needed = (clip.first_frame + len(clip.motion)) * SAMPLES_PER_FRAME
    wave = torch.nn.functional.pad(wave, (0, max(0, needed - len(wave))))
    return (wave.clamp(-1, 1) * 32767).to(torch.int16)


def synthesize_photos(
    folder: str | os.PathLike[str],
    portraits: str | os.PathLike[str],
    *,
    clips: int,
    landmarks: str | os.PathLike[str] | None = None,
    frames: int = 24,
    seed: int = 0,
    split: str = "train",
    first: int = 0,
    stride: int = 1,
    turn: float = 1.0,
    drawn_every: int = DRAWN_EVERY,
    with_flow: bool = True,
    device: Device = None,
    speak: Speaker | None = None,
) -> Iterator[ClipRecord]:
    """Write the clips first, first + stride, … below `clips` that the folder lacks.

    drawn_every: one clip in so many is drawn, 0 for none; `first`, `stride`, `speak` as in `synthesize`.
    Raises: MediaError, OutputError, DependencyError.
    """
    folder = Path(folder)
    stills = load_stills(portraits, landmarks, held_out=split != "train")
    have = Manifest(folder, missing_ok=True)
    for index in range(first, clips, stride):
        drawn = drawn_every > 0 and index % drawn_every == drawn_every - 1
        clip_id = f"{split}-{seed}-{index:06d}" if drawn else f"{split}-photo-{seed}-{index:06d}"
        if clip_id in have:
            continue
        clip = draw_clip(seed, split, index, frames=frames, speak=speak)
        person = choose_person(stills, seed, split, index)
        record = ClipRecord(
            id=clip_id,
            clip=f"clips/{clip_id}.safetensors",
            frames=frames,
            identity=clip_id if drawn or split == "train" else person.name,
            split=split,
            fps=float(FPS),
        )
        path = folder / record.clip
        if drawn:
            write_clip(path, clip, device)
        else:
            rng = np.random.default_rng([seed, SPLIT_SEEDS[split], index, 11])
            tensors = photo_clip(person, clip, turn=turn, with_flow=with_flow, device=device, rng=rng)
            metadata = {
                "motion": ",".join(MOTION),
                "lead_frames": str(clip.first_frame),
                "skin_group": str(max(0, person.host.skin - 1)),
                "size": str(tensors["frames"].shape[1]),
                "person": person.name,
            }
            with atomic_path(path) as temporary:
                save_file(tensors, str(temporary), metadata=metadata)
        append_records(folder, [record])
        yield record
