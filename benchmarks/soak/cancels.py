"""Ctrl-C again and again: in processes at any moment, and in one process that must not grow by it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.passes import Passes, footprint, resident
from benchmarks.soak.harness import Outcome, Soak, decoded, frames_sha256, now, scenario
from benchmarks.soak.runs import SEGMENT_FRAMES
from letstalk_core.generate.talking_portrait import GenerateSettings, Progress, Summary, TalkingPortrait
from letstalk_core.generate.work_folder import RUN_FILE, WorkFolder
from letstalk_core.media.video.segments import SegmentedVideo
from letstalk_core.networks.load import load_bundle

__all__ = ["cancel", "cancel_in_one_process"]

STOPPED = 130  # exit code
WARM_UP = 5  # cancelled runs before the process is measured
GROWTH = 64  # MiB at most


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


@scenario("cancel in one process")
def cancel_in_one_process(soak: Soak) -> Outcome:
    """Runs cancelled in a random pass of the network: not one more pass, and no thread, file or memory is kept."""
    outcome = Outcome()
    bundle, speech = load_bundle(soak.bundle), soak.speech()
    portrait = torch.arange(64 * 64 * 3).remainder(253).to(torch.uint8).view(64, 64, 3)
    asked: list[bool] = []
    passes = Passes(lambda: asked.append(True), bundle.dit)

    def progress(state: Progress) -> None:
        if asked:
            raise KeyboardInterrupt

    def generate(name: str, at: int) -> Summary | None:
        """None when nothing was done yet."""
        asked.clear()
        passes.arm(at)
        folder = soak.folder / name
        video = SegmentedVideo(folder / "v.mp4", 25, (64, 64), folder / "work", SEGMENT_FRAMES, audio=speech)
        settings = GenerateSettings(steps=2, seed=5)
        try:
            return TalkingPortrait(bundle).generate(
                portrait, speech, video, settings, progress, WorkFolder(folder / "work")
            )
        except KeyboardInterrupt:
            return None

    soak.fresh("whole"), soak.fresh("part")
    generate("whole", 0)
    total, expected = passes.passes, frames_sha256(soak.folder / "whole" / "v.mp4")
    before: dict[str, int] = {}
    memory = 0
    for cycle in range(WARM_UP + soak.kills):
        if cycle == WARM_UP:
            before, memory = footprint(), resident()
        summary = generate("part", soak.random.randint(1, max(1, total // 4)))
        outcome.check(passes.after == 0, f"{passes.after} passes after the cancelled one")
        outcome.check(
            not _temporary_of_run(soak.folder / "part"), f"left: {_temporary_of_run(soak.folder / 'part')}"
        )
        if summary is not None and not summary.interrupted:  # the last clips of a run that was continued
            outcome.count("videos finished")
            outcome.check(frames_sha256(soak.folder / "part" / "v.mp4") == expected, "frames or sound differ")
            soak.fresh("part")
        outcome.count("runs")
    after, grown = footprint(), (resident() - memory) / 2**20
    for name, count in after.items():
        outcome.check(count <= before[name], f"{name}: {before[name]} became {count}")
        outcome.figures[f"most {name} left"] = count - before[name]
    outcome.figures["most MiB gained"] = round(grown, 1)
    outcome.check(grown < GROWTH, f"memory grew by {grown:.0f} MiB in {soak.kills} cancelled runs")
    generate("part", 0)
    outcome.check(frames_sha256(soak.folder / "part" / "v.mp4") == expected, "frames or sound differ at the end")
    return outcome


def _temporary_of_run(folder: Path) -> list[Any]:
    return [p.name for p in folder.rglob("*") if p.name.startswith(".") or ".tmp" in p.name or ".part" in p.name]
