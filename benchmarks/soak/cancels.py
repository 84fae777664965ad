"""Ctrl-C again and again, at any moment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from benchmarks.soak.harness import Outcome, Soak, decoded, frames_sha256, now, scenario
from letstalk_core.generate.work_folder import RUN_FILE

STOPPED = 130  # exit code


@scenario("cancel")
def cancel(soak: Soak) -> Outcome:
    """A SIGINT at a random moment: exit code 130, what is done is kept and plays, and the same command continues.

    The video must be, frame by frame and in its sound, that of a run nobody disturbed.
    """
    outcome = Outcome()
    calm = soak.fresh("calm") / "v.mp4"
    command = _command(soak, calm)
    begin = now()
    ended = soak.zygote.run(command, calm.parent)
    duration = now() - begin
    outcome.check(ended.status == 0, f"the undisturbed run failed: {ended.errors[-400:]}")
    if outcome.failures:
        return outcome
    expected = frames_sha256(calm)
    folder = soak.fresh("cancelled")
    out = folder / "v.mp4"
    stops, done = 0, False
    while stops < soak.kills or not done:
        fresh = not (folder / "v.mp4.work").exists()
        pid = soak.zygote.start(_command(soak, out), folder)
        begin = now()
        after = soak.random.uniform(0, duration)
        if stops < soak.kills:
            time.sleep(after)
            begin = now()
            os.kill(pid, signal.SIGINT)  # one that has ended is not waited for yet, so its number is its own
        ended = soak.zygote.wait(pid)
        if ended.status == STOPPED:
            stops += 1
            outcome.count("stops")
            outcome.figures["most s until it ended"] = max(
                float(outcome.figures.get("most s until it ended", 0)), round(now() - begin, 2)
            )
            _check_stopped(outcome, folder, ended.errors)
        elif ended.status == 0:
            if fresh and stops < soak.kills:  # it was done by then
                duration = min(duration, max(after, 0.2))
        else:
            outcome.failures.append(f"exit code {ended.status} after {stops} stops: {ended.errors[-400:]}")
            return outcome
        done = out.exists() and not (folder / "v.mp4.work").exists()
        if done:
            outcome.count("videos finished")
            outcome.check(frames_sha256(out) == expected, f"frames or sound differ after {stops} stops")
            if stops < soak.kills:
                out.unlink()
        if outcome.failures:
            return outcome
    return outcome


def _command(soak: Soak, out: Path) -> list[str]:
    return [part for part in soak.generate(out, "--resume") if part != "--quiet"]


def _check_stopped(outcome: Outcome, folder: Path, said: str) -> None:
    """What a stop leaves: a video of what is done with its work folder, or nothing new."""
    last = said.strip().splitlines()[-1:] or [""]
    outcome.check("stopped" in last[0] and "Traceback" not in said, f"a stopped run says {said[-400:]!r}")
    outcome.check(not _temporary(folder), f"left behind: {_temporary(folder)}")
    if last[0].startswith("stopped after"):
        outcome.count("stops with a video")
        frames = int(last[0].split()[2])
        outcome.check((folder / "v.mp4.work" / RUN_FILE).exists(), "the work folder of a stopped run is gone")
        found = decoded(folder / "v.mp4") if (folder / "v.mp4").exists() else 0
        outcome.check(found == frames, f"{frames} frames were said to be written, {found} play")


def _temporary(folder: Path) -> list[str]:
    known = ("v.mp4", "v.mp4.work")
    return sorted(
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.name.startswith(".") or p.suffix == ".tmp" or (p.parent == folder and p.name not in known)
    )
