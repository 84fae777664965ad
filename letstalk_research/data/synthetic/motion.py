"""Movement of drawn faces: lips from speech, and everything else (blinks, gaze, head) drawn at random.

Head movement is small and smooth: sums of slow sine waves, a share of which follows the loudness of the voice.
Deterministic for a given generator. Source: docs/demo-model.md, Drawn faces (ranges set by eye).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from letstalk_core.networks.motion_channels import GAZE_LIMIT, MOTION, SWAY
from letstalk_core.sampling.motion import BLINK_SHAPE, sine_sway

from .speech import Utterance
from .visemes import viseme_curves

COLUMN = {name: i for i, name in enumerate(MOTION)}


def motion_from_speech(
    utterance: Utterance, frames: int, fps: float, rng: Generator, amount: float = 1.0
) -> NDArray[np.float32]:
    """All movement of a clip; `amount` scales head, brow and gaze, never the lips.

    Shapes: (frames, 15), columns as in MOTION. Frames past the sound are at rest but keep moving the head.
    """
    curves = viseme_curves(utterance, fps, frames)
    motion = np.zeros((frames, len(MOTION)), np.float32)
    seconds = np.arange(frames) / fps
    motion[:, :4] = curves[:, :4]
    stress = _averaged(curves[:, 5], max(1, round(0.36 * fps)))
    smile = rng.uniform(0.0, 0.4) + sine_sway(seconds, rng, 0.5) * 0.12 * amount
    motion[:, COLUMN["smile"]] = np.clip(smile, 0.0, 0.6)
    motion[:, COLUMN["blink"]] = _blinks(frames, fps, rng)
    motion[:, COLUMN["gaze_x"]] = _gaze(frames, fps, rng) * amount
    motion[:, COLUMN["gaze_y"]] = _gaze(frames, fps, rng) * 0.6 * amount
    for name, limit in SWAY.items():
        # 0.75 of the range is left to the sway where loudness adds its share.
        share = 0.75 if name in ("pitch", "shift_y", "brow") else 1.0
        motion[:, COLUMN[name]] = sine_sway(seconds, rng, 0.5) * limit * share * amount
    motion[:, COLUMN["brow"]] += 0.3 * stress * amount
    motion[:, COLUMN["pitch"]] += 0.25 * SWAY["pitch"] * (2 * stress - 1) * amount
    motion[:, COLUMN["shift_y"]] += 0.25 * SWAY["shift_y"] * (2 * stress - 1) * amount
    motion[:, COLUMN["scale"]] += 1.0
    return motion


def neutral_pose(rng: Generator) -> NDArray[np.float32]:
    """A pose for a portrait: eyes open, head almost straight, mouth closed or, in one of ten, slightly open.

    Shapes: (15,).
    """
    pose = np.zeros(len(MOTION), np.float32)
    pose[COLUMN["smile"]] = rng.uniform(0.0, 0.5)
    if rng.random() < 0.1:
        pose[:4] = rng.uniform(0.0, (0.2, 0.3, 0.2, 0.5))
    for name in ("gaze_x", "gaze_y"):
        pose[COLUMN[name]] = rng.uniform(-0.08, 0.08)
    for name, limit in SWAY.items():
        pose[COLUMN[name]] = rng.uniform(-0.4, 0.4) * limit
    pose[COLUMN["scale"]] += 1.0
    return pose


def random_pose(rng: Generator, n: int) -> NDArray[np.float32]:
    """Independent poses over the whole range of `motion_from_speech`, all lip combinations included.

    Shapes: (n, 15). One in four mouths is closed, as mouths in speech are; one in seven is blinking.
    """
    pose = np.zeros((n, len(MOTION)), np.float32)
    pose[:, :4] = rng.uniform(0.0, 1.0, (n, 4))
    pose[:, 0] **= 1.2  # a little more weight on small openings, where shapes differ most
    pose[rng.random(n) < 0.25, 0] = 0.0
    relaxed = rng.random((n, 3)) < 0.3
    pose[:, 1:4][relaxed] = 0.0
    lips = rng.random(n) < 0.5  # half as in speech: wide and round exclude each other
    wide_wins = pose[:, 1] > pose[:, 2]
    pose[lips & wide_wins, 2] = 0.0
    pose[lips & ~wide_wins, 1] = 0.0
    pose[:, COLUMN["smile"]] = rng.uniform(0.0, 0.6, n)
    pose[:, COLUMN["blink"]] = np.where(rng.random(n) < 0.15, rng.uniform(0.0, 1.0, n), 0.0)
    gaze = rng.uniform(-GAZE_LIMIT, GAZE_LIMIT, (n, 2)) * (rng.random((n, 1)) < 0.4)
    pose[:, COLUMN["gaze_x"]], pose[:, COLUMN["gaze_y"]] = gaze[:, 0], 0.6 * gaze[:, 1]
    for name, limit in SWAY.items():
        pose[:, COLUMN[name]] = rng.uniform(-limit, limit, n)
    pose[:, COLUMN["brow"]] += 0.3 * rng.random(n)
    pose[:, COLUMN["scale"]] += 1.0
    return pose


def _averaged(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    if not len(values):
        return values
    kernel = np.hanning(width + 2)[1:-1]
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), "valid").astype(np.float32)


def _blinks(frames: int, fps: float, rng: Generator) -> NDArray[np.float32]:
    """Lids (frames,): 0 open, 1 shut, once every two to five seconds."""
    lids = np.zeros(frames, np.float32)
    shape_s = (np.arange(len(BLINK_SHAPE) + 2) - 1) / 25
    shape = np.array((0.0, *BLINK_SHAPE, 0.0))
    start_s, seconds = rng.uniform(0.3, 4.0), np.arange(frames) / fps
    while start_s < frames / fps:
        start_s = np.round(start_s * fps) / fps
        lids = np.maximum(lids, np.interp(seconds - start_s, shape_s, shape).astype(np.float32))
        start_s += rng.uniform(2.0, 5.0)
    return lids


def _gaze(frames: int, fps: float, rng: Generator) -> NDArray[np.float32]:
    """Eye direction (frames,): near 0, now and then a jump to one side, held for half a second to two."""
    gaze = np.full(frames, rng.uniform(-0.04, 0.04), np.float32)
    start_s = rng.uniform(1.0, 8.0)
    while start_s < frames / fps:
        held_s = rng.uniform(0.5, 2.0)
        gaze[round(start_s * fps) : round((start_s + held_s) * fps)] = rng.uniform(-GAZE_LIMIT, GAZE_LIMIT)
        start_s += held_s + rng.uniform(3.0, 9.0)
    return gaze
