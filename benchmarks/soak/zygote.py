"""A process that has everything imported and forks one child per command, so that each costs no start-up.

Children are real processes that run `letstalk` and can be killed at a moment of choice. `Zygote` is the client.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


@dataclass(frozen=True)
class Kill:
    """When a child dies: just before its `event`-th file operation under the watched folder, or inside the write
    that makes a file longer than `written` bytes. A kill by the clock needs no plan: `os.kill` the child."""

    event: int = 0
    written: int = 0


@dataclass(frozen=True)
class Ended:
    """A child that is gone. status: exit code, or the negative number of a signal."""

    status: int
    errors: str
    events: int

    @property
    def killed(self) -> bool:
        return self.status in (-signal.SIGKILL, -signal.SIGXFSZ)


class Zygote:
    """Starts commands and waits for them; a context manager. `folder` takes their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.soak.zygote"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reply()  # it is ready: scenarios choose moments by how long an undisturbed run takes

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the zygote died with status {self._process.wait()}")
        return json.loads(line)

    def start(
        self, command: Sequence[str], watched: Path, kill: Kill | None = None, limit: int = 0, synced: str = ""
    ) -> int:
        """Run `letstalk COMMAND`; returns the process number.

        `limit`: no file may be longer, as if the disk were full. `synced`: a file that gets the inode numbers of
        what was made safe.
        """
        kill = kill or Kill()
        return int(
            self._ask(
                command=list(command),
                watched=str(watched),
                log=str(self.folder),
                event=kill.event,
                written=kill.written,
                limit=limit,
                synced=synced,
            )["pid"]
        )

    def wait(self, pid: int) -> Ended:
        """The end of a child that was started."""
        status = int(self._ask(wait=pid)["status"])
        log, count = self.folder / f"{pid}.log", self.folder / f"{pid}.events"
        ended = Ended(
            status,
            log.read_text(encoding="utf-8", errors="replace"),
            int(count.read_text(encoding="utf-8") or 0) if count.exists() else 0,
        )
        for path in (log, count):
            path.unlink(missing_ok=True)
        return ended

    def run(self, command: Sequence[str], watched: Path, kill: Kill | None = None, **options: Any) -> Ended:
        return self.wait(self.start(command, watched, kill, **options))

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _serve() -> None:
    import torch

    torch.set_num_threads(1)
    import av  # noqa: F401

    import letstalk_core.cli.__main__
    import letstalk_core.generate.run
    import letstalk_core.media.audio.features
    import letstalk_core.media.video.contact_sheet
    import letstalk_core.media.video.segments
    from benchmarks.long_runs import tiny_bundle

    letstalk_core.cli.__main__.build_parser()
    tiny_bundle()  # imports what is imported late; an import takes a child longer than the rest of its life
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            pid = request["wait"]
            if pid not in ended:
                ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            reply = {"status": ended.pop(pid)}
        else:
            # A Ctrl-C before the command runs waits for it; in a shell's background it would be ignored.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                _child(request)
            reply = {"pid": pid}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def _child(request: dict[str, Any]) -> None:
    """Run the command and end the process."""
    code = 1
    try:
        log = Path(request["log"])
        handle = os.open(log / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        counter = _Counter(request["watched"], request["event"])
        sys.addaudithook(counter)
        _limits(request)
        if request["synced"]:
            _note_syncs(request["synced"])
        from letstalk_core.cli.__main__ import main

        code = _interruptible(main, request["command"])
        counter.at = 0
        (log / f"{os.getpid()}.events").write_text(str(counter.count), encoding="utf-8")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _interruptible(main: Callable[[Sequence[str]], int], command: Sequence[str]) -> int:
    """`main(command)`, which alone gets the Ctrl-C."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        code = main(command)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    except KeyboardInterrupt:  # on the threshold
        code = 130
    return code


class _Counter:
    """Counts file operations under a folder, and kills its process before the chosen one."""

    def __init__(self, folder: str, at: int) -> None:
        self.folder, self.at, self.count = folder, at, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and str(arguments[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def _limits(request: dict[str, Any]) -> None:
    import resource

    size = request["written"] or request["limit"]
    if size:
        if request["written"]:  # Python ignores this signal; by default it ends a process inside the write
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _note_syncs(path: str) -> None:
    log, fsync = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        os.write(log, f"{os.fstat(handle).st_ino}\n".encode())

    os.fsync = noted  # type: ignore[assignment]


if __name__ == "__main__":
    _serve()
