"""A file of jobs, CSV or one JSON object a line: each becomes the arguments of one `letstalk generate`."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ConfigError
from ..files import known_sha256
from . import generate
from .output import check_apart

TABLE = "batch.csv"  # says what became of the jobs, in the folder of results
REQUIRED = ("portrait", "audio")
INPUTS = (*REQUIRED, "vocals", "motion", "reference", "model", "sign", "sign_key")  # relative to the file of jobs
RESULTS = ("output", "png", "contact_sheet", "drift_plot")  # relative to the folder of results
OF_THE_RUN = {"resume", "restart", "retake", "retake_seed", "overwrite", "json", "quiet", "part"}  # not of one job
ELSEWHERE = {*OF_THE_RUN, "device", "threads", "compile"}  # what they change is not worth a second video
WORDS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}


@dataclass(frozen=True)
class Job:
    """One video. `args` are those of `letstalk generate`; `place` is where the job stands, for people."""

    args: argparse.Namespace
    place: str

    @property
    def output(self) -> Path:
        return Path(self.args.output)

    @property
    def work(self) -> Path:
        """The folder that an unfinished run leaves."""
        return self.output.with_name(self.output.name + ".work")

    @property
    def resumes(self) -> bool:
        """Whether there is something to go on from."""
        return (self.work / "run.json").is_file()

    def digest(self) -> str:
        """Tells jobs apart that make other videos: of the options, and of the contents of all that is read."""
        asked = {key: value for key, value in vars(self.args).items() if key not in {*ELSEWHERE, *RESULTS}}
        for name in INPUTS:
            if asked[name] is not None:
                asked[name] = _mapped(asked[name], lambda file: _contents(Path(file)))
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def read_jobs(path: Path, results: Path, settings: argparse.Namespace) -> list[Job]:
    """The jobs of a file, with `settings` where a job says nothing else; results go to the folder `results`.

    Raises: ConfigError naming the line and the value, OutputError if a result is another's or something that is
    read.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    generate.add_arguments(parser)
    usual = vars(parser.parse_args(["portrait", "audio"]))
    jobs = [
        _job(parser, usual, row, f"{path}, line {line}", path.parent, results, settings)
        for line, row in _rows(path)
    ]
    if not jobs:
        raise ConfigError(f"{path}: holds no job; give a line with portrait and audio for each video")
    taken = {"the file of jobs": path, "the table of the batch": results / TABLE}
    check_apart(dict(_files(jobs, RESULTS)), {**taken, **dict(_files(jobs, INPUTS))})
    return jobs


def _files(jobs: list[Job], names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for job in jobs:
        for name in names:
            value = getattr(job.args, name)
            for file in value if isinstance(value, list) else [value] * (value is not None):
                yield f"{name.replace('_', ' ')} of {job.place}", Path(file)


def _mapped(value: Any, change: Callable[[str], object]) -> Any:
    """The name of a file, or each of several, changed to another."""
    return [str(change(file)) for file in value] if isinstance(value, list) else str(change(value))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and what the lines say, by column."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".jsonl"):
        raise ConfigError(f"{path}: must be a .csv with a line of column names, or a .jsonl with an object a line")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv_rows(path, file) if kind == ".csv" else _json_rows(path, file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _csv_rows(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file, strict=True)
    names = [name.strip() for name in reader.fieldnames or []]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: has the column {twice[0]!r} twice")
    reader.fieldnames = names
    for row in reader:
        if None in row:
            raise ConfigError(
                f"{path}, line {reader.line_num}: has more values than there are columns; quote commas"
            )
        yield reader.line_num, {name: value for name, value in row.items() if value}


def _json_rows(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number}: is no JSON ({error})") from None
        if not isinstance(row, dict):
            raise ConfigError(f'{path}, line {number}: must be an object such as {{"portrait": …, "audio": …}}')
        yield number, {name: value for name, value in row.items() if value is not None}


def _job(
    parser: argparse.ArgumentParser,
    usual: dict[str, Any],
    row: dict[str, Any],
    place: str,
    inputs: Path,
    results: Path,
    settings: argparse.Namespace,
) -> Job:
    row = {name.replace("-", "_"): value for name, value in row.items()}
    columns = set(usual) - OF_THE_RUN
    unknown = sorted(set(row) - columns)
    if unknown:
        raise ConfigError(f"{place}: unknown column {unknown[0]!r}; known are {', '.join(sorted(columns))}")
    lacks = [name for name in REQUIRED if name not in row]
    if lacks:
        raise ConfigError(f"{place}: has no {lacks[0]}")
    row.setdefault("output", f"{Path(str(row['portrait'])).stem}-{Path(str(row['audio'])).stem}.mp4")
    shared = {name: value for name, value in vars(settings).items() if name in usual and name not in RESULTS}
    chosen = {**usual, **shared, "json": False}
    argv = []
    for name, value in row.items():
        if name == "reference" and isinstance(value, list) and all(isinstance(file, str) for file in value):
            argv += [f"--reference={file}" for file in value]
            continue
        if isinstance(value, (dict, list)):
            raise ConfigError(f"{place}: {name} must be text, a number, true or false")
        if usual[name] is False:
            chosen[name] = _flag(place, name, value)
        elif name not in REQUIRED:
            argv.append(f"--{name.replace('_', '-')}={value}")
    try:
        args = parser.parse_args(
            [*argv, "--", *(str(row[name]) for name in REQUIRED)], argparse.Namespace(**chosen)
        )
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    for folder, names in ((inputs, INPUTS), (results, RESULTS)):
        for name in names:
            if name in row:
                setattr(args, name, _mapped(getattr(args, name), folder.joinpath))
    args.resume = True
    return Job(args, place)


def _flag(place: str, name: str, value: Any) -> bool:
    try:
        return WORDS[str(value).strip().lower()]
    except KeyError:
        raise ConfigError(f"{place}: {name}={value!r:.40} must be true or false") from None


def _contents(path: Path) -> str:
    """A hash of a file, or of the model files of a folder; the name where there is none."""
    if path.is_dir():
        return " ".join(f"{file.name} {_contents(file)}" for file in sorted(path.glob("*.safetensors")))
    return known_sha256(path) if path.is_file() else str(path)  # many jobs read the same files
