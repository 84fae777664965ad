"""How many CPU threads a run takes when nobody says."""

from __future__ import annotations

import os

import pytest

from letstalk_core.cli.hardware import threads_of_run


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 2), (4, 2), (8, None)])
def test_few_cores_are_shared_by_the_parts_of_a_run(
    cores: int, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of_run(None) == threads
    assert threads_of_run(7) == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_of_run(None) is None
