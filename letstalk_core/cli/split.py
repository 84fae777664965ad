"""One long video shared by workers: its parts are jobs of their own, and joined when the last one is done."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, MediaError, OutputError
from ..files import atomic_path
from ..generate.parts import find_parts
from ..media.audio.decode import AudioSource
from ..media.video.container import video_tags
from ..media.video.segments import join_videos
from ..media.video.writer import frame_rate
from ..networks.checkpoint import read_header
from ..networks.load import DEMO_FOLDER
from .attempt import Row
from .failures import explain
from .info import describe
from .jobs import Job
from .results import draw_sheet, make_signer

PLAN = "parts.json"
OWN = re.compile(r"parts\.json|\d{4,}\.mp4(\.work)?|\..*\.tmp(\.\w+)?")


def share(jobs: Sequence[Job], seconds: float | None) -> tuple[list[Job], dict[Path, Split]]:
    """What is to be done for these jobs, with long ones cut into parts of `seconds` or more; and by the output of
    each part, what it is a part of. Raises: ConfigError, OutputError.
    """
    tasks: list[Job] = []
    splits: dict[Path, Split] = {}
    for job in jobs:
        try:
            split = Split(job, seconds) if seconds is not None else None
        except (MediaError, CheckpointError):  # are told when the job is tried
            split = None
        if split is None or len(split.tasks) < 2:
            tasks.append(job)
        else:
            tasks += split.begin()
            splits |= {task.output: split for task in split.tasks}
    return tasks, splits


class Split:
    """A job and its parts, in a folder beside its output that goes when they are joined.

    Parts that an earlier run of the same job finished are kept. Raises: ConfigError for results that only a whole
    run can make, OutputError if the folder is something else's, MediaError.
    """

    def __init__(self, job: Job, seconds: float) -> None:
        self.job, self.broken, self.elapsed = job, False, 0.0
        self.folder = _folder(job)
        for name in ("png", "drift_plot", "keep_work", "as_authors"):
            if getattr(job.args, name):
                raise ConfigError(f"{job.place}: {name} cannot be with --split; leave out one of them")
        self.sound = AudioSource(job.args.audio)
        self.fps = _fps(job.args)
        heard = AudioSource(job.args.vocals) if job.args.vocals is not None else self.sound
        self.parts = find_parts(heard, self.fps, seconds)
        self.tasks = [self._task(part) for part in self.parts]
        self.left: set[Path] = set()

    def _task(self, part: Any) -> Job:
        alone = {"contact_sheet": None, "sign": None, "sign_key": None, "overwrite": True}
        output = str(self.folder / f"{part.number:04d}.mp4")
        args = argparse.Namespace(**{**vars(self.job.args), **alone, "output": output, "part": part})
        return Job(args, f"{self.job.place}, part {part.number + 1}")

    def begin(self) -> list[Job]:
        """The parts that are not done, their folder made. Raises: OutputError."""
        plan = {"job": self.job.digest(), "parts": [part.first for part in self.parts]}
        try:
            known = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if known != plan:
            if known is None and self.folder.is_dir() and any(self.folder.iterdir()):
                raise OutputError(f"{self.folder}: is needed for parts, but holds other files; move it away")
            clear(self.job)
            with atomic_path(self.folder / PLAN) as temporary:
                temporary.write_text(json.dumps(plan), encoding="utf-8")
        self.left = {task.output for task in self.tasks if task.resumes or not task.output.is_file()}
        return [task for task in self.tasks if task.output in self.left]

    def put(self, task: Job, row: Row) -> Row | None:
        """What is now known of the whole job, from what became of a part; None if that is nothing new."""
        self.elapsed += row.get("elapsed_seconds", 0.0)
        if row["state"] == "done":
            self.left.discard(task.output)
            return None if self.left else self.join()
        if self.broken or row["state"] == "running":
            return None if self.broken else row
        self.broken = True
        number = f"part {task.args.part.number + 1}"
        return {**row, "error": f"{number}: {row['error']}"} if row["state"] == "failed" else row

    def join(self) -> Row:
        """The parts as one video with its sound, as a row: whatever goes wrong with it is there."""
        frames = sum(part.count for part in self.parts)
        try:
            self._join(frames)
            draw_sheet(self.job.args)
            clear(self.job)
        except Exception as error:
            return {"state": "failed", "error": explain(error) or f"{error!r:.300}"}
        return {
            "state": "done",
            "error": "",
            "frames": frames,
            "seconds": round(frames / self.fps, 3),
            "elapsed_seconds": round(self.elapsed, 3),
        }

    def _join(self, frames: int) -> None:
        signer = make_signer(self.job.args)
        pieces = [task.output for task in self.tasks]
        said = describe(pieces[0])["metadata"]  # by the part of itself, and true of all
        details = {**said["letstalk"], "parts": [part.first for part in self.parts]}

        def seal(path: Path) -> None:
            if signer is not None:
                signer.sign(path, details, self.job.output.name)

        tags = video_tags({"comment": said["comment"], "letstalk": details})
        self.sound.pin()
        join_videos(pieces, self.job.output, frame_rate(self.fps), frames, self.sound, tags, seal)


def clear(job: Job) -> None:
    """Delete what a run of a job wrote to the folder of its parts, and the folder. Raises: OutputError."""
    folder = _folder(job)
    try:
        for path in list(folder.iterdir()):
            if OWN.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be deleted ({error.strerror}); delete it by hand") from None


def _folder(job: Job) -> Path:
    return job.output.with_name(job.output.name + ".parts")


def _fps(args: argparse.Namespace) -> float:
    if args.fps is not None:
        return float(args.fps)
    _, config = read_header(Path(args.model or DEMO_FOLDER) / "dit.safetensors").part("dit")
    return float(config.fps)
