"""Scenarios of one run of `letstalk generate`: killed, stopped with Ctrl-C, twice at once, on a full disk."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.soak.harness import Outcome, Soak, decoded, frames_sha256, safe_frames, scenario
from benchmarks.soak.zygote import Ended, Kill
from letstalk_core.generate.work_folder import RUN_FILE

SEGMENT_FRAMES = 48
# Frames at most that the file so far is behind: a segment that just got its name, and a fragment of half a second.
LAG = SEGMENT_FRAMES + 24
STOPPED = 130  # exit code after a Ctrl-C
KILLS = ("event", "event", "write", "time")


@scenario("kills")
def kills(soak: Soak) -> Outcome:
    """Kill at random: between file operations, inside writes, by the clock; then lose what was not synced.

    The same command is given until the video is done, which must be, frame by frame and in its sound, that of a
    run nobody disturbed; while it is not, the file so far must play all finished segments.
    """
    return kill_again_and_again(soak, (), lambda folder: frames_sha256(folder / "v.mp4"), "frames or sound differ")


@scenario("cancel")
def cancel(soak: Soak) -> Outcome:
    """A SIGINT at a random moment: exit code 130, what is done is kept and plays, and the same command continues.

    The video must be, frame by frame and in its sound, that of a run nobody disturbed.
    """
    options, differs = ("--resume",), "frames or sound differ"
    return kill_again_and_again(soak, options, lambda folder: frames_sha256(folder / "v.mp4"), differs, ("stop",))


def kill_again_and_again(
    soak: Soak,
    options: Sequence[str],
    result: Callable[[Path], object],
    differs: str,
    kinds: Sequence[str] = KILLS,
) -> Outcome:
    """Give the kills of a round to a video after the other; `result(folder)` must be that of a calm run."""
    outcome = Outcome()
    calm = soak.fresh("calm") / "v.mp4"
    command = soak.generate(calm, *options)
    begin = time.monotonic()
    ended = soak.zygote.run(command, calm.parent)
    duration, events = time.monotonic() - begin, ended.events
    outcome.check(ended.status == 0, f"the undisturbed run failed: {ended.errors}")
    if outcome.failures:
        return outcome
    expected = result(calm.parent)
    folder = soak.fresh("killed")
    out, work = folder / "v.mp4", folder / "v.mp4.work"
    killed, done = 0, False
    while killed < soak.kills or not done:
        kind = "none" if killed >= soak.kills else soak.random.choice(kinds)
        status = _run_once(soak, folder, soak.generate(out, *options), kind, events, duration, outcome)
        if status < 0 or (kind == "stop" and status == STOPPED):
            killed += 1
            outcome.count(f"kills ({kind})")
        if status < 0:
            safe, played = safe_frames(work, SEGMENT_FRAMES)
            outcome.check(played >= safe - LAG or out.exists(), f"{safe} frames are safe, but {played} play")
        elif status > 0 and kind != "stop":
            outcome.failures.append(f"exit code {status} after {killed} kills")
        if outcome.failures:
            return outcome
        done = status == 0 or (out.exists() and not (work / RUN_FILE).exists())
        if done:
            outcome.count("videos finished")
            outcome.check(result(folder) == expected, f"{differs} (round {soak.folder})")
            if killed < soak.kills:
                out.unlink()
                shutil.rmtree(work, ignore_errors=True)
    left = sorted(p.name for p in folder.iterdir() if p.name not in ("v.mp4", "v.mp4.work"))
    outcome.check(not left, f"left behind: {left}")
    return outcome


def start(
    soak: Soak,
    folder: Path,
    command: list[str],
    kind: str,
    events: int,
    duration: float,
    outcome: Outcome,
    synced: str = "",
) -> Ended:
    """One start of the program, ended in the way of `kind`, within so many file operations or seconds."""
    kill = Kill()
    if kind == "event":
        kill = Kill(event=soak.random.randint(1, events))
    elif kind == "write":
        kill = Kill(written=round(10 ** soak.random.uniform(1, 5.6)))
    pid = soak.zygote.start(command, folder, kill, synced=synced)
    if kind in ("time", "stop"):
        time.sleep(soak.random.uniform(0, duration))
        # one that has ended is not waited for yet, so its number is its own
        os.kill(pid, signal.SIGKILL if kind == "time" else signal.SIGINT)
    begin = time.monotonic()
    ended = soak.zygote.wait(pid)
    if kind == "stop":
        outcome.add(Outcome({"most s until it ended": round(time.monotonic() - begin, 2)}))
    return ended


def _run_once(
    soak: Soak, folder: Path, command: list[str], kind: str, events: int, duration: float, outcome: Outcome
) -> int:
    """One start, after which what was not synced is lost; returns its status."""
    before = {p.stat().st_ino for p in folder.rglob("*")}
    synced = soak.folder / "synced"
    synced.unlink(missing_ok=True)
    ended = start(soak, folder, command, kind, events, duration, outcome, str(synced))
    if kind == "stop" and ended.status == STOPPED:
        _check_stopped(outcome, folder, ended.errors)
    elif ended.killed:
        safe = {int(n) for n in synced.read_text().split()} if synced.exists() else set()
        outcome.count("files lost to the power cut", _lose(folder, before | safe, soak.random))
    elif ended.status:
        outcome.failures.append(ended.errors.strip()[-500:])
    return ended.status


def _check_stopped(outcome: Outcome, folder: Path, said: str) -> None:
    """What a Ctrl-C leaves: a video of what is done with its work folder, or nothing new."""
    last = said.strip().splitlines()[-1:] or [""]
    outcome.check("stopped" in last[0] and "Traceback" not in said, f"a stopped run says {said[-400:]!r}")
    halves = sorted(str(p) for p in folder.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp")
    outcome.check(not halves, f"left behind: {halves}")
    if last[0].startswith("stopped after"):
        outcome.count("stops with a video")
        frames = int(last[0].split()[2])
        outcome.check((folder / "v.mp4.work" / RUN_FILE).exists(), "the work folder of a stopped run is gone")
        found = decoded(folder / "v.mp4") if (folder / "v.mp4").exists() else 0
        outcome.check(found == frames, f"{frames} frames were said to be written, {found} play")


def _lose(folder: Path, safe: set[int], chance: random.Random) -> int:
    """What a power cut does to new files that were never synced: they end early, or hold zeros. The number."""
    lost = 0
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if not path.is_file() or status.st_ino in safe or not status.st_size or path.name == "so_far.mp4":
            continue
        with path.open("r+b") as file:
            if chance.random() < 0.5:
                file.truncate(chance.randrange(status.st_size))
            else:
                file.write(b"\0" * status.st_size)
        lost += 1
    return lost


@scenario("two at once")
def concurrency(soak: Soak) -> Outcome:
    """The same command twice at once: one works, one refuses; after a kill of the first the second continues."""
    outcome = Outcome()
    folder = soak.fresh("two")
    out = folder / "v.mp4"
    pids = [soak.zygote.start(soak.generate(out), folder) for _ in range(2)]
    ended = [soak.zygote.wait(pid) for pid in pids]
    good = sorted(e.status for e in ended)
    refused = [e for e in ended if e.status == 2]
    outcome.check(good in ([0, 0], [0, 2]), f"exit codes {good}")
    for other in refused:
        outcome.check(bool(re.search("in use by process|exists already", other.errors)), other.errors[-300:])
    outcome.count("second runs refused", len(refused))
    expected = frames_sha256(out)
    out.unlink()
    first = soak.zygote.start(soak.generate(out), folder)
    deadline = time.monotonic() + 60
    while not list(folder.glob("v.mp4.work/video-*")) and not out.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = soak.zygote.run(soak.generate(out), folder)
    os.kill(first, signal.SIGKILL)
    soak.zygote.wait(first)
    if not out.exists():
        outcome.check("in use by process" in second.errors, second.errors[-300:])
        third = soak.zygote.run(soak.generate(out), folder)
        outcome.check(third.status == 0, third.errors[-300:])
        outcome.count("locks freed by a kill")
    outcome.check(frames_sha256(out) == expected, "frames or sound differ after the other run was killed")
    return outcome


@scenario("disk full")
def disk_full(soak: Soak) -> Outcome:
    """A disk too small: the run stops, says how much is missing, and continues when that much was freed."""
    outcome = Outcome()
    calm = soak.fresh("roomy") / "v.mp4"
    soak.zygote.run(soak.generate(calm), calm.parent)
    expected, size = frames_sha256(calm), calm.stat().st_size
    folder = soak.fresh("full")
    size_limit = round(size * soak.random.uniform(1.2, 2.2))
    mounted = _mount(folder, size_limit)
    try:
        out = folder / "v.mp4"
        limit = 0 if mounted else round(size * soak.random.uniform(0.3, 0.9))
        ended = soak.zygote.run(soak.generate(out), folder, limit=limit)
        told = re.search(r"About ([\d.]+ \w?B) are needed for the (\d+) of (\d+) frames", ended.errors)
        outcome.check(ended.status == 2 and told is not None, f"status {ended.status}: {ended.errors[-400:]}")
        outcome.check("Traceback" not in ended.errors, ended.errors[-400:])
        outcome.check(not out.exists(), "a video that is not whole has its name")
        if told:
            outcome.count("stops")
            outcome.figures["it said"] = f"{told[1]} needed, {size / 1e3:.0f} kB is the video"
        if mounted:
            needed = _bytes(told[1]) if told else 3 * size
            free = shutil.disk_usage(folder).free
            subprocess.run(
                ["mount", "-o", f"remount,size={size_limit + max(0, needed - free) + 65536}", str(folder)],
                check=True,
            )
        ended = soak.zygote.run(soak.generate(out), folder)
        outcome.check(ended.status == 0, f"did not continue: {ended.errors[-400:]}")
        outcome.check(out.exists() and frames_sha256(out) == expected, "frames or sound differ")
        outcome.figures["disk"] = "tmpfs" if mounted else "limit of file sizes"
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)
    return outcome


def _mount(folder: Path, size: int) -> bool:
    """Put a small disk there, which takes a superuser."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "letstalk-soak", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _bytes(text: str) -> int:
    number, unit = text.split()
    return round(float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit])
