"""Folders of drawn talking clips: every clip is a person, an utterance and a stretch of frames of them saying it.

Person, sentence, voice and pose of clip `index` depend on (seed, split, index) alone, so that several processes
can share the work and a stopped job goes on where it was. Only espeak-ng's sound, and with it the moving face,
differs a little from run to run; who is drawn and the portraits do not hang on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.alignment import SAMPLES_PER_FRAME
from letstalk_core.networks.motion_channels import MOTION
from letstalk_core.protocols import Device

from ...output import save_tensors
from ..manifest import ClipRecord, Manifest, append_records
from .faces import FRAME_SIZE, regions, render
from .identity import Identity, sample_identity
from .motion import motion_from_speech, neutral_pose
from .speech import Utterance, silence
from .texts import Speaker, random_utterance

FPS = 25
SILENT_SHARE = 0.05  # of the clips, in which nobody speaks: rest is rare inside of sentences
SPLIT_SEEDS = {"train": 0, "val": 1}  # people of the splits come from different streams of random numbers


@dataclass(frozen=True)
class DrawnClip:
    """A person, what they say, how they move, and the stretch of frames that is kept."""

    identity: Identity
    utterance: Utterance
    motion: np.ndarray  # (t, 15) of the kept stretch
    portrait_motion: np.ndarray  # (p, 15)
    first_frame: int  # of the kept stretch, in the utterance


def draw_clip(
    seed: int, split: str, index: int, *, frames: int, portraits: int = 2, speak: Speaker | None = None
) -> DrawnClip:
    """Choose all about one clip. `speak` says the sentences, by default espeak-ng.

    Raises: ConfigError for an unknown split, DependencyError without espeak.
    """
    if split not in SPLIT_SEEDS:
        raise ConfigError(f"split={split!r} must be one of {sorted(SPLIT_SEEDS)}")
    rng, moves, poses, rest = (
        np.random.default_rng([seed, SPLIT_SEEDS[split], index, purpose]) for purpose in range(4)
    )
    identity = sample_identity(rng)
    seconds = frames / FPS + 0.4
    if rest.random() < SILENT_SHARE:
        utterance = silence(seconds + rest.uniform(0.0, 3.0))
    else:
        said = "train" if split == "train" else "held_out"
        utterance = (speak or random_utterance)(rng, said, min_seconds=seconds)
    total = max(frames, len(utterance.waveform) // SAMPLES_PER_FRAME)
    motion = motion_from_speech(utterance, total, FPS, moves)
    first = int(moves.integers(0, total - frames + 1))
    portrait_motion = np.stack([neutral_pose(poses) for _ in range(portraits)])
    return DrawnClip(identity, utterance, motion[first : first + frames], portrait_motion, first)


def synthesize(
    folder: str | Path,
    *,
    clips: int,
    frames: int = 24,
    seed: int = 0,
    split: str = "train",
    first: int = 0,
    stride: int = 1,
    device: Device = None,
    speak: Speaker | None = None,
) -> Iterator[ClipRecord]:
    """Write the clips first, first + stride, … below `clips` that the folder does not have; yields each record.

    `first` and `stride` divide the work between processes; `speak` is `draw_clip`'s.
    Raises: OutputError, DependencyError without espeak.
    """
    folder = Path(folder)
    have = Manifest(folder, missing_ok=True)
    for index in range(first, clips, stride):
        clip_id = f"{split}-{seed}-{index:06d}"
        if clip_id in have:
            continue
        clip = draw_clip(seed, split, index, frames=frames, speak=speak)
        record = ClipRecord(
            id=clip_id,
            clip=f"clips/{clip_id}.safetensors",
            frames=frames,
            identity=clip_id,
            split=split,
            fps=float(FPS),
        )
        write_clip(folder / record.clip, clip, device)
        append_records(folder, [record])
        yield record


def write_clip(path: Path, clip: DrawnClip, device: Device = None) -> None:
    """Draw a clip and write it."""
    motion = np.concatenate([clip.portrait_motion, clip.motion])
    count = len(clip.portrait_motion)
    pictures = render(clip.identity, motion, device=device).cpu()
    boxes = regions(clip.identity, motion)
    wave = torch.from_numpy(clip.utterance.waveform)
    needed = (clip.first_frame + len(clip.motion)) * SAMPLES_PER_FRAME
    wave = torch.nn.functional.pad(wave, (0, max(0, needed - len(wave))))
    tensors = {
        "frames": pictures[count:],
        "portraits": pictures[:count],
        "audio": (wave.clamp(-1, 1) * 32767).to(torch.int16),
        "motion": torch.from_numpy(clip.motion).half(),
        "portrait_motion": torch.from_numpy(clip.portrait_motion).half(),
        "regions": boxes[count:],
        "portrait_regions": boxes[:count],
    }
    metadata = {
        "motion": ",".join(MOTION),
        "lead_frames": str(clip.first_frame),
        "skin_group": str(clip.identity.skin_group),
        "size": str(FRAME_SIZE),
    }
    save_tensors(path, tensors, metadata)
