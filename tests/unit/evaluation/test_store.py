"""Results of clips are kept, found again, and never mixed up with those of other settings."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from letstalk_core.errors import ConfigError, OutputError
from letstalk_research.evaluation.store import ClipResult, Store


def result() -> ClipResult:
    curves, pictures = {"jaw": np.arange(3.0)}, {"strip": np.ones((2, 4, 4, 3), np.uint8)}
    return ClipResult({"a": 1.5, "b": math.nan}, curves, pictures, {"text": "héllo"})


def unexpected() -> ClipResult:
    raise AssertionError("made again")


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made, found = Store(tmp_path, {"seed": 1}).get("clip", result)
    assert not found
    kept, found = Store(tmp_path, {"seed": 1}).get("clip", unexpected)
    assert found and kept.metrics["a"] == made.metrics["a"] and math.isnan(kept.metrics["b"])
    np.testing.assert_array_equal(kept.curves["jaw"], made.curves["jaw"])
    np.testing.assert_array_equal(kept.pictures["strip"], made.pictures["strip"])
    assert kept.notes == made.notes


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    (tmp_path / "clip.npz").write_bytes(b"PK half a file")
    assert store.get("clip", result)[0].metrics["a"] == 1.5
    assert store.get("clip", unexpected)[1]


def test_other_settings_are_refused_until_the_results_are_discarded(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    Store(folder, {"seed": 1}).get("clip", result)
    with pytest.raises(ConfigError, match="other settings"):
        Store(folder, {"seed": 2})
    Store.discard(folder)
    assert not folder.exists()
    Store(folder, {"seed": 2})
    Store.discard(tmp_path / "missing")


def test_a_foreign_folder_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(OutputError, match="no folder of results"):
        Store.discard(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
