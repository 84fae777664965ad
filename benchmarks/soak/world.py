"""The world around a run changes: two runs with like names, inputs replaced, links in the way."""

from __future__ import annotations

import os
import time

from benchmarks.soak.harness import Outcome, Soak, frames_sha256, scenario
from letstalk_core.generate.work_folder import RUN_FILE

PRECIOUS = b"precious"


@scenario("like names")
def like_names(soak: Soak) -> Outcome:
    """Two runs at once in one folder, whose names differ behind 90 letters: neither touches the other's files."""
    outcome, folder = Outcome(), soak.fresh("like")
    outs = [folder / f"{'v' * 90}-{number}.mp4" for number in (1, 2)]
    pids = [soak.zygote.start(soak.generate(out), folder) for out in outs]
    ended = [soak.zygote.wait(pid) for pid in pids]
    outcome.check([e.status for e in ended] == [0, 0], str([e.errors[-200:] for e in ended]))
    if not outcome.failures:
        outcome.count("videos", 2)
        outcome.check(frames_sha256(outs[0]) == frames_sha256(outs[1]), "two videos of one command differ")
    return outcome


@scenario("changed input")
def changed_input(soak: Soak) -> Outcome:
    """Another recording takes the place of the first at a random moment: one or the other, never parts of both."""
    outcome, folder = Outcome(), soak.fresh("changed")
    speech = soak.speech()
    old = speech.read_bytes()
    whole = folder / "whole.mp4"
    outcome.check(soak.zygote.run(soak.generate(whole), folder).status == 0, "the undisturbed run failed")
    out = folder / "v.mp4"
    pid = soak.zygote.start(soak.generate(out), folder)
    deadline = time.monotonic() + soak.random.uniform(0, 3)
    while time.monotonic() < deadline or not (folder / "v.mp4.work" / RUN_FILE).exists():
        if out.exists() or time.monotonic() > deadline + 60:
            break
        time.sleep(0.02)
    early = not (folder / "v.mp4.work" / RUN_FILE).exists()
    speech.write_bytes(old[:44] + old[44:][::-1])
    ended = soak.zygote.wait(pid)
    speech.write_bytes(old)
    if ended.status == 0:
        outcome.count("finished before")
    else:
        outcome.count("refused")
        outcome.check("was changed or replaced" in ended.errors, ended.errors[-300:])
        again = soak.generate(out, *(("--restart",) if early else ()))
        outcome.check(soak.zygote.run(again, folder).status == 0, "did not continue with the old one")
    outcome.check(early or frames_sha256(out) == frames_sha256(whole), "frames or sound differ")
    return outcome


@scenario("links")
def links(soak: Soak) -> Outcome:
    """Links named like the files of a run, to a file that is not its own, which must stay as it is."""
    outcome, folder = Outcome(), soak.fresh("links")
    victim = folder / "victim"
    victim.write_bytes(PRECIOUS)
    work = folder / "v.mp4.work"
    work.mkdir()
    names = ["lock", ".so_far.mp4.tmp.mp4", "so_far.mp4", "video-000000.mp4", "clip-000000.safetensors", RUN_FILE]
    name = soak.random.choice([*names, "../.v.joining.tmp.mp4", "../v.mp4"])
    link = soak.random.choice((os.symlink, os.link))
    link(victim, work / name)
    ended = soak.zygote.run(soak.generate(folder / "v.mp4", "--overwrite", "--restart"), folder)
    outcome.check(victim.read_bytes() == PRECIOUS, f"{link.__name__} {name}: what it leads to was written over")
    outcome.check(ended.status in (0, 2) and "Traceback" not in ended.errors, f"{name}: {ended.errors[-300:]}")
    outcome.count("links refused" if ended.status else "links replaced")
    return outcome
