"""What a run asks of the place where its finished clips are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..sampling.clip import Clip

if TYPE_CHECKING:
    from .run import Run


class Work:
    """What is finished of a run, for later ones; this one keeps nothing."""

    def begin(self, run: dict[str, Any]) -> None:
        """Belong to the run of this fingerprint. Raises: ConfigError, OutputError."""

    def resume(self, run: Run, held: int) -> int:
        """The position in the plan to begin at, with the run's memory and scores as they are there.

        `held` frames are safe in the video: their clips are needed for the memory only.
        """
        return 0

    def load(self, clip: Clip) -> Tensor | None:
        """Latents of a finished clip (b, f, c, h, w), or None."""
        return None

    def save(self, clip: Clip, latents: Tensor) -> None:
        """Keep a finished clip. Raises: OutputError."""

    def checkpoint(self, run: Run, done: int, held: int) -> None:
        """So many clips of the plan are in the run's memory: keep it now and then, drop what nobody needs."""

    def end(self, interrupted: bool = False) -> None:
        """The result is there, or the run was stopped on purpose. Raises: OutputError."""

    def leave(self) -> None:
        """Let go after a failure."""
