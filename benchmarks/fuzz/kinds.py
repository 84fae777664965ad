"""What is damaged and what has to survive it: for each kind of input, `make` writes a case and `check` reads it.

A check may return or raise one of `letstalk_core.errors`; anything else is a defect.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.fuzz import media_files, model_files, self_test, tables

SELF_TEST = "self test"  # to see that the watch notices
Make = Callable[[Random, Path, Path], None]  # generator, seeds, folder of the case
Check = Callable[[Path], None]


@dataclass(frozen=True)
class Kind:
    """`make(rng, seeds, folder)` writes into `folder`; `check(folder)` reads it. `weight`: part of the cases."""

    make: Make
    check: Check
    weight: int = 1


KINDS: dict[str, Kind] = {
    "model file": Kind(model_files.make_model, model_files.check_model, 3),
    "memory bank": Kind(model_files.make_bank, model_files.check_bank, 2),
    "pickled checkpoint": Kind(model_files.make_pickle, model_files.check_pickle),
    "config.json": Kind(model_files.make_config, model_files.check_config),
    "sound": Kind(media_files.make_sound, media_files.check_sound, 3),
    "video": Kind(media_files.make_video, media_files.check_video, 3),
    "picture": Kind(media_files.make_picture, media_files.check_picture, 3),
    "work folder": Kind(tables.make_work, tables.check_work),
    "manifest": Kind(tables.make_manifest, tables.check_manifest),
    "recipe": Kind(tables.make_recipe, tables.check_recipe, 2),
    "name": Kind(tables.make_name, tables.check_name),
}
if os.environ.get("LETSTALK_FUZZ_SELF_TEST"):
    KINDS[SELF_TEST] = Kind(self_test.make, self_test.check)
