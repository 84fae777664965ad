"""The work of `letstalk batch`: which jobs are to do, who makes them, and the table of what became of each."""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..errors import ConfigError, OutputError
from ..files import FileLock, atomic_path
from .attempt import Models, Row, attempt
from .hardware import at_least, threads_of_run
from .jobs import TABLE, Job, read_jobs
from .output import say, write_out
from .split import clear, share

COLUMNS = ("output", "state", "error", "frames", "seconds", "elapsed_seconds", "tries", "portrait", "audio", "job")


def run_batch(args: argparse.Namespace) -> int:
    """Make what is not made yet of a file of jobs; the exit code. Raises: LetsTalkError."""
    at_least(1, workers=args.workers)
    at_least(0, retries=args.retries)
    if args.split is not None and not args.split > 1:
        raise ConfigError(f"split={args.split:g} must be more than 1 second")
    folder = Path(args.folder)
    jobs = read_jobs(Path(args.jobs), folder, args)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{TABLE}.lock")
        if not lock.acquire():
            raise OutputError(
                f"{folder}: is in use by process {lock.holder()}; wait for it, or choose another folder"
            )
    except OSError as error:
        raise OutputError(f"{folder}: cannot be used ({error.strerror}); choose another folder") from None
    try:
        return _run(args, jobs, _Table(folder / TABLE))
    finally:
        lock.release(delete=True)


def _run(args: argparse.Namespace, jobs: list[Job], table: _Table) -> int:
    started = time.monotonic()
    todo = table.begin(jobs)
    if len(todo) < len(jobs):
        say(f"{len(jobs) - len(todo)} of {len(jobs)} jobs are done already", args.quiet)
    tasks, splits = share(todo, args.split)
    alone = args.ray is None and args.workers is None

    def note(job: Job, row: Row) -> None:
        table.put(job, row)
        if row["state"] == "failed":
            say(f"failed: {job.place}: {row['error']}")
        elif row["state"] == "done" and not alone:
            say(f"{table.count('done')} of {len(jobs)} done: {job.output}", args.quiet)

    try:
        for split in set(splits.values()):
            if not split.left:
                note(split.job, split.join())
        for task, row in _here(tasks, args) if alone else _on_ray(tasks, args):
            owner = splits.get(task.output)
            known = row if owner is None else owner.put(task, row)
            if known is not None:
                note(task if owner is None else owner.job, known)
    finally:
        done, failed = table.count("done"), table.count("failed")
        seconds = time.monotonic() - started
        say(f"{done} of {len(jobs)} done, {failed} failed, in {seconds:.1f} s; see {table.path}", args.quiet)
    if args.json:
        write_out(json.dumps(table.rows, indent=2) + "\n")
    return 130 if table.count("stopped") else 2 if failed else 0


def _here(todo: Sequence[Job], args: argparse.Namespace) -> Iterator[tuple[Job, Row]]:
    """One after another in this process, each when it begins and when it ends."""
    models, threads = Models(), threads_of_run(None) or torch.get_num_threads()
    for number, job in enumerate(todo, 1):
        say(f"job {number} of {len(todo)}: {job.output}", args.quiet)
        job.args.threads = job.args.threads or threads  # not those of the run that another job continued
        yield job, {"state": "running"}
        row = attempt(job, models, args.retries)
        yield job, row
        if row["state"] == "stopped":
            return


def _on_ray(todo: Sequence[Job], args: argparse.Namespace) -> Iterator[tuple[Job, Row]]:
    """Shared by the workers of a Ray cluster."""
    from .cluster import Cluster

    for job in todo:
        job.args.quiet = True
    with Cluster(args.ray or "local", args.workers) as cluster:
        say(f"{cluster.workers} workers, {cluster.threads} threads each", args.quiet)
        yield from cluster.run(todo, args.retries)


class _Table:
    """What became of the jobs, in a CSV file that is whole at any moment, and what a later run of the batch needs.

    A job is to do, running or replacing (something was at its place when it began), done, failed or stopped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, Row] = {}  # by output

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def begin(self, jobs: Sequence[Job]) -> list[Job]:
        """Compare with what an earlier run of the batch says; returns the jobs that are not done.

        Raises: OutputError if a file is in the way of a job.
        """
        before = {row["output"]: row for row in self._read()}
        todo = []
        for job in jobs:
            row: Row = {**dict.fromkeys(COLUMNS, ""), "output": str(job.output), "state": "to do"}
            row |= {"portrait": job.args.portrait, "audio": job.args.audio, "job": job.digest()}
            known = before.get(row["output"], {})
            state = known.get("state", "") if known.get("job") == row["job"] else ""
            if state in ("running", "replacing", "stopped"):
                job.args.overwrite = True  # what is there, if anything, is what this job left
            if _is_done(job, state):
                clear(job)
                row = {**known, "state": "done"}
            else:
                todo.append(job)
                if job.output.exists() and not job.args.overwrite and not job.resumes:
                    raise OutputError(
                        f"{job.output}: exists already, and not from {job.place} as it is now; add --overwrite, or"
                        " choose another name"
                    )
            self._rows[row["output"]] = row
        self._write()
        return todo

    def put(self, job: Job, row: Row) -> None:
        """Note what became of a job. Raises: OutputError."""
        if row["state"] == "running" and job.output.exists():
            row = {**row, "state": "replacing"}
        self._rows[str(job.output)].update(row)
        self._write()

    def count(self, state: str) -> int:
        return sum(row["state"] == state for row in self.rows)

    def _read(self) -> list[Row]:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                return [row for row in csv.DictReader(file) if set(COLUMNS) <= set(row)]
        except (OSError, ValueError, csv.Error):
            return []

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_path(self.path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


def _is_done(job: Job, state: str) -> bool:
    """Whether the video is whole: what was killed left a work folder, unless that was in its last moment."""
    return job.output.is_file() and (state == "done" or (state == "running" and not job.resumes))
