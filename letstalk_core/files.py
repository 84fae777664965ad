"""Files that survive a crash: written whole or not at all, synchronised, hashed, locked."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from .errors import OutputError

BUSY = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}
TEMPORARY = re.compile(r"\.+(.+?)(?:\.\d+-[0-9a-f]{8}\.tmp(?:\.\w+)?)+")  # signing makes one of a temporary file
LONGEST = 100  # bytes of a name that its temporary files repeat; file systems allow 143 to 255 in all
FAR = 1 << 30  # the locked byte on Windows, where nobody else can read locked ones

log = logging.getLogger(__name__)
T = TypeVar("T")


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut. Raises: OSError for a file."""
    if path.is_dir():
        with contextlib.suppress(OSError):  # Windows opens no folders, and some file systems sync none
            _sync(path, os.O_RDONLY)
    else:
        _sync(path, os.O_RDWR)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def new_temporary(path: Path) -> Path:
    """A new, empty, hidden file beside `path` that no other run has or guesses. Raises: OSError.

    It is made exclusively, so never through a link, and its name fits wherever that of `path` does.
    """
    while True:
        ending = path.suffix if len(os.fsencode(path.suffix)) <= 16 else ""
        name = f".{_stem(path)}.{os.getpid()}-{secrets.token_hex(4)}.tmp{ending}"
        temporary = path.with_name(name)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
            return temporary


def remove_leftovers(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Delete temporary files that killed runs left in a folder, by the names of the files that they were for.

    Only for whoever knows that no other run writes those files now.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = TEMPORARY.fullmatch(path.name)
            if found is not None and is_ours(found[1]):
                path.unlink(missing_ok=True)


def remove_leftovers_of(path: Path) -> None:
    """The same for the temporary files of one file."""
    remove_leftovers(path.parent, lambda name: name == _stem(path))


def _stem(path: Path) -> str:
    """The name, or the begin of a long one and a hash that tells it from others with the same begin."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST:
        return path.name
    return name[: LONGEST // 2].decode("utf-8", "ignore") + "~" + hashlib.sha256(name).hexdigest()[:16]


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary file beside `path`, renamed to it when the block ends well and deleted when it does not.

    `durable`: after a power cut, too, there is the whole file or the one before; costs a wait for the disk.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_temporary(path)
        mode = stat.S_IMODE(temporary.stat().st_mode)  # which new files get here; safetensors gives 0600
        yield temporary
        temporary.chmod(mode)
        if durable:
            sync_to_disk(temporary)
        temporary.replace(path)
        if durable:
            sync_to_disk(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be written ({reason}); check the folder and free disk space") from error
    finally:
        with contextlib.suppress(OSError):  # where the folder itself is bad, the first error is the one to show
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def file_sha256(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def while_unchanged(most: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """For functions of a file: asked again only when the file has changed. Keeps the last `most` results."""

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.lru_cache(maxsize=most)
        def known(path: Path, modified: int, size: int, *more: Any) -> T:
            return function(path, *more)

        @functools.wraps(function)
        def ask(path: Path, *more: Any) -> T:
            status = path.stat()
            return known(path, status.st_mtime_ns, status.st_size, *more)

        return ask

    return decorate


known_sha256 = while_unchanged(256)(file_sha256)


class FileLock:
    """A lock on a file that the operating system takes back when its holder dies, however it dies.

    One holder at a time among processes, and among objects of one process, on this machine.
    The file holds the holder's process number, for messages. On file systems without locks there is a warning
    and no protection. A link in its place is refused, because whatever it leads to would be overwritten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        return self._handle is not None

    def acquire(self) -> bool:
        """Whether the lock is now, or was already, this object's; never waits. Raises: OSError."""
        while self._handle is None:
            handle = _open_own(self.path)
            try:
                busy = not _lock(handle)
                if busy or _is_file(handle, self.path):
                    if not busy:
                        os.ftruncate(handle, 0)
                        os.write(handle, str(os.getpid()).encode())
                        self._handle, handle = handle, -1
                    return not busy
            finally:  # another holder deleted the file between our opening and locking it: again
                if handle >= 0:
                    os.close(handle)
        return True

    def holder(self) -> str:
        """The process number in the file, for people."""
        try:
            return self.path.read_text(encoding="ascii", errors="replace").strip() or "unknown"
        except OSError:
            return "unknown"

    def release(self, delete: bool = False) -> None:
        """Let go; with `delete` the file goes too. The second time nothing happens."""
        handle, self._handle = self._handle, None
        if delete and sys.platform != "win32":  # while it is still ours
            self.path.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)
        if delete and sys.platform == "win32":
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.release()


def _open_own(path: Path) -> int:
    """Open a file, made if needed, that is no link and has no second name. Raises: OSError."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link", str(path))
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    if os.fstat(handle).st_nlink > 1:
        os.close(handle)
        raise OSError(errno.EMLINK, "is a hard link to another file", str(path))
    return handle


def _is_file(handle: int, path: Path) -> bool:
    """Whether the path still is the opened file."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in BUSY:
            return False
        log.warning("files cannot be locked here (%s): do not start the same run twice", error.strerror)
    return True
