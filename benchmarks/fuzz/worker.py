"""One process that reads damaged input, case by case, and says how each ended; its parent watches it.

Lines on stdout are JSON: {} when it is ready, then for each case {"outcome": …, "error": …, "megabytes": …,
"seconds": …}. Seconds are those of the processor, so that a busy machine does not look like a hang.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import sys
import time
import traceback
import warnings
from pathlib import Path
from random import Random

from benchmarks.fuzz.checks import REFUSALS, is_ours
from benchmarks.fuzz.kinds import KINDS, SELF_TEST, Kind

MIB = 2**20
HEADROOM = 3 * 2**30  # address space beyond what is mapped after the imports; the limit that counts is on memory


def main(arguments: list[str]) -> None:
    """WORK SEED FOLDER; WORK is a JSON list of [kind, first case, the case after the last]."""
    work, seed, place = json.loads(arguments[0]), arguments[1], arguments[2]
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print, too
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    root = Path(place).resolve()
    _prepare_outside(root)
    if any(name != SELF_TEST for name, _, _ in work):
        _prepare_seeds(root)
    for name, _, _ in work:  # imports, so that their memory and time count for no case
        _run(KINDS[name], "warm", root)
    limit = _status("VmSize") + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out.write("{}\n")
    for name, first, stop in work:
        for number in range(first, stop):
            out.write(json.dumps(_run(KINDS[name], f"{seed}:{name}:{number}", root)) + "\n")


def _prepare_seeds(root: Path) -> None:
    import torch

    from benchmarks.fuzz.seeds import make_seeds

    torch.set_num_threads(1)
    if not (root / "seeds").exists():
        make_seeds(root / "seeds")


def _prepare_outside(root: Path) -> None:
    (root / "outside").mkdir(exist_ok=True)
    (root / "outside" / "victim.txt").write_text("untouched", encoding="utf-8")


def _run(kind: Kind, seed: str, root: Path) -> dict[str, object]:
    folder = root / "inside"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kind.make(Random(seed), root / "seeds", folder)
    before = _seen(root)
    os.chdir(folder)
    _reset_peak()
    memory, start = _status("VmRSS"), time.process_time()
    outcome, error = "accepted", ""
    REFUSALS.clear()
    try:
        kind.check(folder)
        if REFUSALS:
            outcome, error = "refused", REFUSALS[0]
    except BaseException as caught:  # nothing but our errors may come
        if is_ours(caught):
            outcome, error = "refused", type(caught).__name__
        else:
            outcome, error = "crash", _where(caught)
    seconds, megabytes = time.process_time() - start, max(0, _status("VmHWM") - memory) / MIB
    os.chdir(root)
    if _seen(root) != before:
        outcome, error = "escape", f"files outside its folder changed: {sorted(_seen(root) ^ before)}"
        shutil.rmtree(root / "outside")
        _prepare_outside(root)
    return {"outcome": outcome, "error": error, "megabytes": round(megabytes, 1), "seconds": round(seconds, 3)}


def _where(error: BaseException) -> str:
    ours = ("letstalk_core", "letstalk_research")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if any(name in f.filename for name in ours)]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:160]}"


def _seen(root: Path) -> set[tuple[str, int, int]]:
    """Names, sizes and times of all files that a case must leave alone."""
    places = [p for p in root.iterdir() if p.name not in ("inside", "seeds")] + list((root / "outside").rglob("*"))
    return {(str(p.relative_to(root)), p.lstat().st_size, p.lstat().st_mtime_ns) for p in places if not p.is_dir()}


def _status(key: str) -> int:
    """Bytes, from /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # then the peak is that of all cases so far
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
