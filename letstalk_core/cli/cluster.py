"""Jobs of a batch on Ray, which starts the workers, gives them GPUs and cores, and starts dead ones again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ConfigError, DependencyError
from .attempt import Models, Row, attempt
from .jobs import Job


class _Worker:
    """Lives on one GPU, or some cores, and keeps its models from job to job."""

    def __init__(self, threads: int) -> None:
        self.models, self.threads = Models(), threads

    def hello(self) -> None:
        """Returns when there is such a worker."""

    def make(self, job: Job, retries: int) -> Row:
        job.args.threads = job.args.threads or self.threads
        return attempt(job, self.models, retries)


class Cluster:
    """A Ray cluster at an address, or with "local" one of this machine that ends with the block.

    A worker takes one GPU, or where there are none as many cores as there are for each. Raises: DependencyError,
    ConfigError if there is no cluster at the address.
    """

    def __init__(self, address: str, workers: int | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of our own reports to nobody
        try:
            import ray
        except ImportError as error:
            raise DependencyError(
                f"several workers need Ray ({error}); pip install 'letstalk-portrait[ray]', or leave out --workers"
                " and --ray"
            ) from None
        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            quiet = {"log_to_driver": False, "logging_level": "error"}
            local = {"include_dashboard": False} if address == "local" else {}
            try:
                ray.init(address, **quiet, **local)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"--ray {address}: no cluster answers there ({error}); see `ray status`"
                ) from None
        resources = ray.cluster_resources()
        self.gpus, cores = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
        self.workers = min(workers or self.gpus or cores, self.gpus or cores)
        largest = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
        self.threads = max(1, min(cores // self.workers, largest))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def run(self, jobs: Sequence[Job], retries: int) -> Iterator[tuple[Job, Row]]:
        """Each job when a worker begins it, and what came of it when that is known.

        A job whose worker died is tried again by Ray on a new one, `retries` times.
        """
        ray, todo = self._ray, deque(jobs)
        worker = ray.remote(_Worker).options(
            num_cpus=self.threads, num_gpus=int(self.gpus > 0), max_restarts=-1, max_task_retries=retries
        )
        count = min(self.workers, len(jobs))
        waiting: dict[Any, tuple[Any, Job | None]] = {}
        for _ in range(count):
            actor = worker.remote(self.threads)
            waiting[actor.hello.remote()] = actor, None
        lost = ""
        while (todo and waiting) or any(job for _, job in waiting.values()):
            (ready,), _ = ray.wait(list(waiting))
            actor, job = waiting.pop(ready)
            try:
                row = ray.get(ready)
            except ray.exceptions.RayError as error:
                lost = f"its worker died: {str(error).strip().splitlines()[0]:.300}"
                if job is None:  # it never lived, such as where LetsTalk is not installed
                    continue
                row = {"state": "failed", "error": lost}
            if job is not None:
                yield job, row
            if todo:
                following = todo.popleft()
                yield following, {"state": "running"}
                waiting[actor.make.remote(following, retries)] = actor, following
        yield from ((job, {"state": "failed", "error": lost}) for job in todo)
