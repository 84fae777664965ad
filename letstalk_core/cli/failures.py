"""What went wrong, as one line for people."""

from __future__ import annotations

import re

from ..errors import LetsTalkError


def explain(error: Exception) -> str | None:
    """The line for an error of input, settings or the machine; None for a fault of LetsTalk."""
    text = _reason(error)
    return " ".join(text.split()) if text is not None else None


def _reason(error: Exception) -> str | None:
    if isinstance(error, LetsTalkError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of CUDA
        return "the device is out of memory; use a smaller --size, or --dtype bfloat16"
    wanted = _wanted_memory(error)
    if wanted is not None:
        return (
            f"memory is full: {wanted}could not be had; use a smaller --size or --dtype bfloat16, or close other"
            " programs"
        )
    return None


def _wanted_memory(error: Exception) -> str | None:
    """How much main memory could not be had, if it is known; None if that is not what went wrong."""
    text = str(error)
    asked = re.search(r"tried to allocate (\d+) bytes", text)  # torch's words, of the CPU
    if asked is not None and "alloc" in text:
        return f"{int(asked[1]) / 1e9:.1f} GB more "
    if isinstance(error, MemoryError):
        asked = re.search(r"allocate ([\d.]+ \wiB)", text)  # NumPy's
        return f"{asked[1]} more " if asked else "what is needed "
    return None
