"""A run whose clips drift from the portrait, killed: its log and frames are those of an undisturbed one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.soak.harness import Outcome, Soak, frames_sha256, scenario
from benchmarks.soak.runs import kill_again_and_again
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.sampling.drift import DriftLog


@scenario("drift guard")
def drift(soak: Soak) -> Outcome:
    """Kill runs whose level is between the likeness of a free run's clips, so that some of them re-anchor.

    Scores, re-anchored clips and frames must be those of a run nobody disturbed, to the last bit.
    """
    free = soak.fresh("free")
    ended = soak.zygote.run(soak.generate(free / "v.mp4", "--keep-work"), free)
    if ended.status:
        return Outcome(failures=[f"the free run failed: {ended.errors[-400:]}"])
    likeness = [score.lowest for score in _log(free).scores]
    level = max(0.01, (min(likeness) + max(likeness)) / 2)
    options = ("--keep-work", "--drift-level", f"{level:.6f}")
    fewer = replace(soak, kills=max(1, soak.kills // 4))
    outcome = kill_again_and_again(
        fewer, options, lambda folder: (_log(folder), frames_sha256(folder / "v.mp4")), "scores or frames differ"
    )
    log = _log(soak.folder / "calm")
    outcome.check(len(log.scores) > 2, f"{len(log.scores)} clips were scored")
    outcome.check(bool(log.re_anchored), f"nothing was re-anchored at level {level:.3f}")
    outcome.check(log != _log(free), "re-anchoring changed no score")
    outcome.figures["clips re-anchored"] = f"{len(log.re_anchored)} of {len(log.scores)}"
    return outcome


def _log(folder: Path) -> DriftLog:
    work = WorkFolder(folder / "v.mp4.work")
    return work.drift(len(list(work.folder.glob("drift-*.json"))))
