"""An hour of video: memory, disk, the file so far, and whether sound and lips still agree at its end."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.passes import resident
from benchmarks.soak.harness import Outcome, Soak, safe_frames, scenario
from benchmarks.soak.runs import SEGMENT_FRAMES

FLAT = 1.05  # largest resident memory of the last tenth against that of the second tenth
FPS = 25


@scenario("long run", repeat=False)
def long_run(soak: Soak) -> Outcome:
    """Resident memory and disk use over the whole length; sound against the recording in the last seconds."""
    outcome = Outcome()
    folder = soak.fresh("long")
    seconds = soak.long_minutes * 60
    speech, out = soak.speech(seconds), folder / "v.mp4"
    begin = time.monotonic()
    pid = soak.zygote.start(soak.generate(out, speech=speech), folder)
    memory: list[tuple[float, int]] = []  # part of the video, bytes
    peak = 0
    while (held := resident(pid)) > 0 and not out.exists():
        segments = len(list(folder.glob("v.mp4.work/video-*")))
        memory.append((segments * SEGMENT_FRAMES / (seconds * FPS), held))
        peak = max(peak, _disk(folder))
        time.sleep(0.2 if seconds < 300 else 2.0)
    ended = soak.zygote.wait(pid)
    outcome.check(ended.status == 0, ended.errors[-400:])
    if not out.exists():
        return outcome
    early = max((m for part, m in memory if 0.1 <= part < 0.2), default=0)
    late = max((m for part, m in memory if part >= 0.9), default=0)
    outcome.figures |= {
        "minutes of video": soak.long_minutes,
        "minutes it took": round((time.monotonic() - begin) / 60, 1),
        "resident MiB, second tenth": round(early / 2**20),
        "resident MiB, last tenth": round(late / 2**20),
        "video MB": round(out.stat().st_size / 1e6, 1),
        "most MB on the disk": round(peak / 1e6, 1),
    }
    outcome.check(not early or not late or late <= FLAT * early, f"memory grew from {early} to {late} bytes")
    times, lag = _end(out, speech)
    outcome.figures |= {"last frame at s": round(times, 3), "sound lag at the end ms": round(lag * 1000, 2)}
    outcome.check(abs(times - (seconds - 1 / FPS)) < 0.5 / FPS, f"the last frame is shown at {times} s")
    outcome.check(abs(lag) <= 1 / FPS, f"sound is {lag * 1000:.0f} ms off at the end")
    return outcome


@scenario("file so far", repeat=False)
def so_far(soak: Soak) -> Outcome:
    """Whenever one looks, the file so far plays what is finished."""
    outcome = Outcome()
    folder = soak.fresh("looks")
    out = folder / "v.mp4"
    pid = soak.zygote.start(soak.generate(out, speech=soak.speech(5 * soak.seconds)), folder)
    while resident(pid) > 0 and not out.exists():
        try:
            copy = folder / "copy"
            shutil.copytree(folder / "v.mp4.work", copy)
            safe, played = safe_frames(copy, SEGMENT_FRAMES)
        except (OSError, shutil.Error):  # files come and go while they are copied
            continue
        finally:
            shutil.rmtree(folder / "copy", ignore_errors=True)
        if safe:
            outcome.count("looks")
            outcome.figures["most frames behind"] = max(
                float(outcome.figures.get("most frames behind", 0)), safe - played
            )
        time.sleep(0.1)
    ended = soak.zygote.wait(pid)
    outcome.check(ended.status == 0, ended.errors[-400:])
    behind = float(outcome.figures.get("most frames behind", 0))
    outcome.check(behind <= 2 * SEGMENT_FRAMES, f"the file so far was {behind} frames behind")
    return outcome


def _disk(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except OSError:
            continue
    return total


def _end(video: Path, speech: Path, seconds: float = 8.0) -> tuple[float, float]:
    """When the last frame is shown, and how much later than in the recording its sound is, in seconds."""
    import av

    last = 0.0
    with av.open(str(video)) as container:
        stream: Any = container.streams.video[0]
        duration = float(stream.duration * stream.time_base)
        container.seek(round(max(0.0, duration - seconds) * 1_000_000))
        for frame in container.decode(stream):
            last = max(last, frame.time)
    start = max(0.0, duration - seconds - 1)
    ours, theirs = (_sound(path, start, seconds) for path in (video, speech))
    count = min(len(ours), len(theirs))
    spectrum = np.fft.rfft(ours[:count], 2 * count) * np.conj(np.fft.rfft(theirs[:count], 2 * count))
    correlation = np.fft.irfft(spectrum)
    shift = int(correlation.argmax())
    return last, (shift if shift < count else shift - 2 * count) / 16_000


def _sound(path: Path, start: float, seconds: float) -> Any:
    """Samples at 16 kHz of a file from `start` on, by the times of the file itself."""
    import av

    resampler = av.AudioResampler(format="fltp", layout="mono", rate=16_000)
    parts, first = [], None
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        container.seek(round(start * 1_000_000))
        for frame in container.decode(stream):
            if frame.time is None or frame.time < start - 1:
                continue
            first = frame.time if first is None else first
            frame.pts = None
            parts += [f.to_ndarray()[0] for f in resampler.resample(frame)]
            if sum(map(len, parts)) > (seconds + 2) * 16_000:
                break
    samples = np.concatenate(parts)
    skip = round((start - (first or 0.0)) * 16_000)
    return samples[max(0, skip) : max(0, skip) + round(seconds * 16_000)]
