"""A batch on a Ray cluster of this machine, with two workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import skip_untested

from .media import read_frames
from .test_cli_batch import ONE, SECOND, TWO, batch, rows
from .test_split import write_speech

__all__ = ["batch"]

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of many kinds


@pytest.fixture(scope="module", autouse=True)
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two cores; the commands of the tests find it and leave it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        reason = "no Ray here: pip install 'ray' into the environment of the tests"
        skip_untested(request.config, "several workers", reason)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def test_two_workers_make_the_videos_of_one_process(batch: Callable[..., int], tmp_path: Path) -> None:
    table = TWO + "portrait.png,nothing.wav,\n"
    assert batch(TWO) == 0
    (tmp_path / "out").rename(tmp_path / "alone")
    assert batch(table, "--workers", "2") == 2
    found = rows(tmp_path / "out")
    assert {name: row["state"] for name, row in found.items()} == {
        ONE: "done",
        SECOND: "done",
        "portrait-nothing.mp4": "failed",
    }
    assert "nothing.wav" in found["portrait-nothing.mp4"]["error"]
    for name in (ONE, SECOND):
        assert np.array_equal(read_frames(tmp_path / "out" / name), read_frames(tmp_path / "alone" / name))


def test_the_parts_of_one_video_are_shared(batch: Callable[..., int], tmp_path: Path) -> None:
    write_speech(tmp_path / "long.wav", 3)
    assert batch("portrait,audio\nportrait.png,long.wav\n", "--split", "2", "--workers", "2") == 0
    assert len(read_frames(tmp_path / "out" / "portrait-long.mp4")) == 195


def test_a_worker_that_dies_is_replaced_and_its_job_goes_on(batch: Callable[..., int], tmp_path: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        """The worker whose number is in the lock of a work folder, as soon as a clip is finished there."""
        limit = time.monotonic() + 120
        while time.monotonic() < limit and not killed:
            for clip in (tmp_path / "out").glob("*.work/clip-*"):
                killed.append(int((clip.parent / "lock").read_text()))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.002)

    watcher = threading.Thread(target=kill)
    watcher.start()
    code = batch("portrait,audio,steps\nportrait.png,two.wav,60\n", "--ray")
    watcher.join()
    assert killed and killed[0] != os.getpid()
    assert code == 0 and rows(tmp_path / "out")[SECOND]["state"] == "done"
    assert len(read_frames(tmp_path / "out" / SECOND)) == 25
