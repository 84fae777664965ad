"""What is damaged and what has to survive it: for each kind of input, `make` writes a case and `check` reads it.

A check may return or raise one of `letstalk_core.errors`; anything else is a defect.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.fuzz import self_test
from benchmarks.fuzz.media_files import (
    check_picture,
    check_sound,
    check_video,
    make_picture,
    make_sound,
    make_video,
)
from benchmarks.fuzz.model_files import (
    check_bank,
    check_config,
    check_model,
    check_pickle,
    make_bank,
    make_config,
    make_model,
    make_pickle,
)
from benchmarks.fuzz.tables import (
    check_manifest,
    check_name,
    check_recipe,
    check_work,
    make_manifest,
    make_name,
    make_recipe,
    make_work,
)

__all__ = ["KINDS", "SELF_TEST", "Kind"]

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
    "model file": Kind(make_model, check_model, 3),
    "memory bank": Kind(make_bank, check_bank, 2),
    "pickled checkpoint": Kind(make_pickle, check_pickle),
    "config.json": Kind(make_config, check_config),
    "sound": Kind(make_sound, check_sound, 3),
    "video": Kind(make_video, check_video, 3),
    "picture": Kind(make_picture, check_picture, 3),
    "work folder": Kind(make_work, check_work),
    "manifest": Kind(make_manifest, check_manifest),
    "recipe": Kind(make_recipe, check_recipe, 2),
    "name": Kind(make_name, check_name),
}
if os.environ.get("LETSTALK_FUZZ_SELF_TEST"):
    KINDS[SELF_TEST] = Kind(self_test.make, self_test.check)
