"""Work folder of an interruptible run: what a later run needs to continue exactly (docs/runs.md).

Every file is whole on the disk before it has its name, and a lock that dies with its process keeps others out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, ConfigError, OutputError
from ..files import FileLock, atomic_path
from ..networks.checkpoint import load_tensors, read_header
from ..sampling.clip import Clip
from ..sampling.drift import DriftLog
from ..sampling.memory_bank import MemoryBank
from .takes import clear_take, finish_moves, release_take
from .work import Work

if TYPE_CHECKING:
    from .run import Run

RUN_FILE = "run.json"
LOCK_FILE = "lock"
FORMAT = 1
# The release since which the same settings give the same frames: what an older one left unfinished is resumed.
FRAMES_VERSION = "0.1.0"
UNSAID_MACHINE = ("torch", "cpu_instructions", "gpu")  # not in the folders of early versions
MOST_THREADS = 4096
OWN = re.compile(
    r"run\.json|lock|so_far\.mp4|retake|clip-\d{6}\.safetensors|bank-\d{6}\.safetensors|drift-\d{6}\.json"
    r"|video-\d{6}\.mp4|faces\.safetensors"
    r"|\..*\.tmp(\.\w+)?|\.tmp\w+"  # left by a killed run; safetensors writes to a hidden file of its own, too
)


def tensor_sha256(tensor: Tensor) -> str:
    """A hash of the values of a tensor."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


class WorkFolder(Work):
    """What is finished of one run, in `folder`. `begin` ties it to everything that the frames depend on.

    `keep`: nothing is deleted, so that a part can be regenerated later (`retake`); else latents go
    when the video holds their frames, and `remove` ends it all. `also`: more that the result depends on, such as
    how it is encoded. `restart`: whatever another run left here is deleted. `keep_stopped`: stopping a run on
    purpose, as with Ctrl-C, keeps the folder too. `outputs`: results, which this run may replace later.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: bool = False,
        also: dict[str, Any] | None = None,
        restart: bool = False,
        keep_stopped: bool = True,
        outputs: Sequence[Path] = (),
    ) -> None:
        self.folder, self.keep, self.also, self.restart = folder, keep, also or {}, restart
        self.keep_stopped, self._outputs = keep_stopped, [str(path.absolute()) for path in outputs]
        self._lock = FileLock(folder / LOCK_FILE)
        self._pruned = 0  # clips

    def begin(self, run: dict[str, Any]) -> None:
        """Make the folder, or check that it belongs to this very run; it is then locked for this object.

        Raises: ConfigError if it belongs to another run, OutputError if it is in use or not ours.
        """
        self.lock()
        try:
            run = {**run, **self.also}
            found = self._with_moves(self.read())
            if found is not None and self.restart:
                self._clear()
                found = None
            if found is None:
                self._clear()  # what a killed `remove` left
                self._write({"format": FORMAT, "run": run, "outputs": self._outputs})
                return
            known = found.get("run")
            changed = _changed(known, json.loads(json.dumps(run))) if isinstance(known, dict) else ["all"]
            if changed:
                raise ConfigError(
                    f"{self.folder}: belongs to a run that differs in {', '.join(changed)}; repeat its command, or"
                    " delete the folder (--restart) to start anew"
                )
            mine = list(dict.fromkeys([*map(str, self.outputs), *self._outputs]))
            if mine != found.get("outputs", []):
                self._write({**found, "outputs": mine})
        except OutputError:  # such as a disk that is full from the start
            self.leave()
            raise
        except BaseException:
            self.release()
            raise

    def lock(self) -> None:
        """Take the folder, made if needed, for this object. Raises: OutputError."""
        if self._lock.held:
            return
        try:
            if self.folder.is_symlink():
                raise OutputError(f"{self.folder}: is needed as work folder, but is a link; move it away")
            names = [p.name for p in self.folder.iterdir()] if self.folder.is_dir() else []
            if RUN_FILE not in names and not all(map(OWN.fullmatch, names)):
                raise OutputError(
                    f"{self.folder}: is needed as work folder, but holds other files and no {RUN_FILE}; move it"
                    " away"
                )
            for attempt in range(3):
                self.folder.mkdir(parents=True, exist_ok=True)
                try:
                    if not self._lock.acquire():
                        raise OutputError(
                            f"{self.folder}: is in use by process {self._lock.holder()}; wait for it, or choose"
                            " another output"
                        )
                    break
                except FileNotFoundError:  # the other run ended just now, and took the folder with it
                    if attempt == 2:
                        raise
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be used ({error.strerror}); check the path") from error
        for path in self.folder.glob(".*"):
            if OWN.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """The contents of run.json, or None. Raises: ConfigError for what is damaged or of another version."""
        path = self.folder / RUN_FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError, RecursionError) as error:
            if self.restart:
                return {}
            raise ConfigError(
                f"{path}: cannot be read ({error}); delete the folder (--restart) to start anew"
            ) from None
        if found is not None and (not isinstance(found, dict) or found.get("format") != FORMAT):
            if self.restart:
                return {}
            raise ConfigError(
                f"{path}: is not of format {FORMAT}, which this LetsTalk writes; finish it with the version that"
                " began it, or delete the folder (--restart) to start anew"
            )
        return found

    @property
    def threads(self) -> int | None:
        """CPU threads of the run that left this folder, on which its numbers depend, if it says so."""
        run = (self.read() or {}).get("run")
        threads = run.get("threads") if isinstance(run, dict) else None
        return threads if isinstance(threads, int) and 0 < threads <= MOST_THREADS else None

    @property
    def outputs(self) -> list[Path]:
        """Where the runs that this folder belongs to put their results: they made what is there."""
        found = (self.read() or {}).get("outputs", [])
        return [Path(path) for path in found if isinstance(path, str)] if isinstance(found, list) else []

    @property
    def takes(self) -> list[Any]:
        """Parts that were regenerated, the latest last."""
        return list((self.read() or {}).get("takes", []))

    def finish_take(self) -> None:
        """Put the files of a take that is complete where those of the video are. Raises: OutputError."""
        release_take(self.folder)
        self._with_moves(self.read())

    def _with_moves(self, content: dict[str, Any] | None) -> dict[str, Any] | None:
        """What run.json says, after a take that was being moved has arrived."""
        take = finish_moves(self.folder)
        if take is None or content is None:
            return content
        for path in self.folder.glob("bank-*.safetensors"):  # of the clips that were there before
            if int(path.name[5:11]) > take["first"]:
                path.unlink()
        takes = content.get("takes", [])
        if len(takes) < take["number"]:
            content = {**content, "takes": [*takes, take]}
            self._write(content)
        clear_take(self.folder)
        return content

    def release(self) -> None:
        """Let others use the folder."""
        self._lock.release()

    def end(self, interrupted: bool = False) -> None:
        """The result is there, or the run was stopped on purpose. Raises: OutputError."""
        if self.keep or (interrupted and self.keep_stopped):
            if not interrupted:
                (self.folder / "so_far.mp4").unlink(missing_ok=True)  # the video itself is there now
            self.release()
        else:
            self.remove()

    def leave(self) -> None:
        """After a failure: a folder in which nothing is finished goes, any other stays, and is let go of."""
        if not self._lock.held:
            return
        try:
            if any(self.folder.glob("clip-*")) or any(self.folder.glob("video-*")):
                return
            with contextlib.suppress(OutputError):
                self.remove()
        finally:
            self.release()

    def resume(self, run: Run, held: int) -> int:
        # The last clip is always among those to come: its frames or the memory after it may be wanted.
        origin = run.plan[0].first
        safe = sum(clip.first + clip.count - origin <= held for clip in run.plan[:-1])
        start = max(0, self.restore(run.bank, run.offset + safe) - run.offset)
        run.drift.extend(self.drift(start // run.segment))
        self._pruned = start
        return start

    def checkpoint(self, run: Run, done: int, held: int) -> None:
        plan, segment, whole = run.plan, run.segment, done % run.segment == 0
        if whole or done == len(plan):
            first = (done - 1) // segment * segment
            self.save_drift((run.offset + first) // segment, run.drift.since(plan[first].index))
        if whole:  # after re-anchoring, so that decisions about later clips need nothing else
            self.snapshot(run.offset + done, run.bank)
        ready = held // run.clip_frames // segment * segment
        if self._pruned < ready < len(plan):
            self.prune(plan[:ready])
            self._pruned = ready

    def load(self, clip: Clip) -> Tensor | None:
        """Latents of a finished clip (b, f, c, h, w), or None. A damaged file or NaN counts as not finished."""
        path = self.clip_path(clip)
        if not path.exists():
            return None
        try:
            latents = load_tensors(path)["latents"]
            told = read_header(path).metadata.get("sha256")
        except (CheckpointError, KeyError):
            return None
        whole = latents.ndim == 5 and latents.shape[1] == clip.count and told == tensor_sha256(latents)
        return latents if whole and torch.isfinite(latents).all() else None

    def save(self, clip: Clip, latents: Tensor) -> None:
        tensor = latents.detach().to("cpu", torch.float32).contiguous()
        with atomic_path(self.clip_path(clip), durable=True) as temporary:
            save_file({"latents": tensor}, str(temporary), metadata={"sha256": tensor_sha256(tensor)})

    def snapshot(self, done: int, bank: MemoryBank) -> None:
        """Keep the memory as it is after `done` clips of the plan. Raises: OutputError."""
        bank.save(self.folder / f"bank-{done:06d}.safetensors", durable=True)

    def restore(self, bank: MemoryBank, most: int) -> int:
        """Load the latest memory that is not later than after `most` clips; returns after how many, or 0."""
        for path in sorted(self.folder.glob("bank-*.safetensors"), reverse=True):
            done = int(path.name[5:11])
            if done > most:
                continue
            try:
                bank.load_state_dict(MemoryBank.load(path).state_dict())
            except (CheckpointError, ConfigError):
                continue
            return done
        return 0

    def save_drift(self, segment: int, log: DriftLog) -> None:
        """Keep the scores of a segment's clips. Raises: OutputError."""
        with atomic_path(self.folder / f"drift-{segment:06d}.json", durable=True) as temporary:
            temporary.write_text(json.dumps(log.rows()), encoding="utf-8")

    def drift(self, segments: int) -> DriftLog:
        """The scores of the first `segments` segments. After one that is missing or damaged they begin anew."""
        found = DriftLog()
        for segment in range(segments):
            path = self.folder / f"drift-{segment:06d}.json"
            try:
                found.extend(DriftLog.from_rows(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError, RecursionError):
                found = DriftLog()
        return found

    def prune(self, clips: list[Clip]) -> None:
        """Drop the latents of these clips, the first of the plan, if a memory after them is kept."""
        if self.keep or not clips or not (self.folder / f"bank-{len(clips):06d}.safetensors").exists():
            return
        for clip in clips:
            self.clip_path(clip).unlink(missing_ok=True)
        for path in self.folder.glob("bank-*.safetensors"):
            if int(path.name[5:11]) < len(clips):
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder and what this class wrote to it, after the result is complete. Raises: OutputError."""
        try:
            self._clear()
            self._lock.release(delete=True)
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
            self.folder.rmdir()
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be deleted ({error.strerror}); delete it by hand") from None
        finally:
            self._lock.release()

    def _clear(self) -> None:
        # What says that there is something to continue goes first: killed in the middle, the rest is only waste.
        for path in sorted(self.folder.iterdir(), key=lambda p: p.name != RUN_FILE):
            if path.name == LOCK_FILE or not OWN.fullmatch(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _write(self, content: dict[str, Any]) -> None:
        with atomic_path(self.folder / RUN_FILE, durable=True) as temporary:
            temporary.write_text(json.dumps(content, sort_keys=True, indent=2), encoding="utf-8")

    def clip_path(self, clip: Clip) -> Path:
        """Where the latents of a clip lie."""
        return self.folder / f"clip-{clip.index:06d}.safetensors"


def _changed(known: dict[str, Any], run: dict[str, Any]) -> list[str]:
    """Names of what differs. Early versions say nothing of what they lacked: carry, puppets, the CPU."""
    unsaid = {"carry": False, "puppet": False, "output_size": run.get("size")}
    unsaid |= {k: run.get(k) for k in UNSAID_MACHINE}
    known = {**{k: v for k, v in unsaid.items() if k in run}, **known}
    return sorted(k for k in {*run, *known} if run.get(k) != known.get(k))
