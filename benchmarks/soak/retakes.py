"""A part of a finished video made anew, killed on the way: the rest must not change by a bit."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from benchmarks.soak.harness import Outcome, Soak, frame_hashes, scenario
from benchmarks.soak.runs import SEGMENT_FRAMES, start
from letstalk_core.generate.work_folder import RUN_FILE

FPS, CLIP_FRAMES = 25, 16


@scenario("retake")
def retake(soak: Soak) -> Outcome:
    """Retake a part, undisturbed and killed again and again: the same video, and outside the part the old one."""
    outcome = Outcome()
    begin = soak.random.uniform(0, soak.seconds * 0.7)
    end = begin + soak.random.uniform(0.1, soak.seconds * 0.3)
    options = ("--retake", f"{begin:.3f}-{end:.3f}", "--retake-seed", "9")
    videos, works = [], []
    events = 60
    for name in ("retaken", "retaken-killed"):
        folder = soak.fresh(name)
        out = folder / "v.mp4"
        outcome.check(soak.zygote.run(soak.generate(out, "--keep-work"), folder).status == 0, "cannot be made")
        before, files = frame_hashes(out), _files(folder / "v.mp4.work")
        kills = soak.kills // 4 if name != "retaken" else 0
        ended = _until_done(soak, folder, soak.generate(out, *options), kills, events, outcome)
        if ended is None:
            return outcome
        events = ended
        after = frame_hashes(out)
        frames = _range(begin, end, len(before))
        outside = [i for i in range(len(before)) if i not in frames]
        outcome.check(len(after) == len(before), f"{len(before)} frames became {len(after)}")
        outcome.check(all(before[i] == after[i] for i in outside), "frames outside the part differ")
        outcome.check(any(before[i] != after[i] for i in frames), "no frame of the part differs")
        outcome.count("frames outside the part, all the same", len(outside))
        now_ = _files(folder / "v.mp4.work")
        changed = {path for path in {*files, *now_} if files.get(path) != now_.get(path)}
        first = frames.start // CLIP_FRAMES
        memories = {name for name in changed if name.startswith("bank-") and int(name[5:11]) > first}
        allowed = {RUN_FILE, "lock", *_names(frames), *memories}  # what remembers new clips is new itself
        outcome.check(changed <= allowed, f"files changed: {sorted(changed - allowed)}")
        videos.append(after)
        works.append({name: value for name, value in now_.items() if name.startswith(("clip", "drift", "video"))})
    outcome.check(videos[0] == videos[1], "the killed retake gives another video")
    outcome.check(works[0] == works[1], "the killed retake leaves other latents or segments")
    outcome.count("retakes", 2)
    return outcome


def _until_done(
    soak: Soak, folder: Path, command: list[str], kills: int, events: int, outcome: Outcome
) -> int | None:
    """Give the command until it ends well; how many file operations the last start needed, None if it failed."""
    duration = 1.0
    for number in range(kills + 1):
        kind = soak.random.choice(("event", "time")) if number < kills else "none"
        begin = time.monotonic()
        # early, for only what a start has finished is not done again by the next
        ended = start(soak, folder, command, kind, max(2, events // 3), duration, outcome)
        if ended.status == 0:
            return ended.events
        if not ended.killed:
            break
        duration = max(duration, time.monotonic() - begin)
        outcome.count("kills")
    outcome.failures.append(f"exit code {ended.status}: {ended.errors.strip()[-400:]}")
    return None


def _range(begin: float, end: float, frames: int) -> range:
    first = int(begin * FPS / SEGMENT_FRAMES) * SEGMENT_FRAMES
    last = -(-round(end * FPS * 1000) // (SEGMENT_FRAMES * 1000)) * SEGMENT_FRAMES
    return range(first, min(last, frames))


def _names(frames: range) -> set[str]:
    clips = {f"clip-{i // CLIP_FRAMES:06d}.safetensors" for i in frames}
    segments = {i // SEGMENT_FRAMES for i in frames}
    return clips | {f"video-{i:06d}.mp4" for i in segments} | {f"drift-{i:06d}.json" for i in segments}


def _files(work: Path) -> dict[str, Any]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in work.iterdir() if p.is_file()}
