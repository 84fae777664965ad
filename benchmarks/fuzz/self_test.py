"""Cases that misbehave on purpose, to see that the watch notices."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random


def make(rng: Random, seeds: Path, folder: Path) -> None:
    number = len(list(folder.parent.glob("turn-*")))
    (folder.parent / f"turn-{number}").mkdir()
    (folder / "what").write_text(str(number), encoding="utf-8")


def check(folder: Path) -> None:
    """In order, the first being the warm-up of each process."""
    turn = (folder / "what").read_text(encoding="utf-8")
    if turn == "1":
        raise KeyError("not one of ours")
    if turn == "2":
        os.abort()
    if turn == "4":
        while True:
            time.process_time()
    if turn == "6":
        block = bytearray(1300 * 2**20)
        block[:: 2**12] = b"x" * len(range(0, len(block), 2**12))
    if turn == "7":
        (folder.parent / "outside" / "new").write_text("x", encoding="utf-8")
