"""Errors that LetsTalk raises on purpose.

Every message names the thing and its value, says what was needed, and gives the remedy where one is known;
the command line prints that one line and exits with code 2.
"""

from __future__ import annotations


class LetsTalkError(Exception):
    """Base of every error that LetsTalk raises on purpose."""


class ConfigError(LetsTalkError, ValueError):
    """A setting or a shape that cannot work."""


class CheckpointError(LetsTalkError):
    """A model file that is missing, damaged, foreign or of the wrong shape."""


class MediaError(LetsTalkError):
    """An image, sound or video that cannot be read or used."""


class FaceNotFoundError(MediaError):
    """A picture in which no usable face was found."""


class OutputError(LetsTalkError):
    """A result that cannot be written."""


class NumericalError(LetsTalkError):
    """NaN or infinity where numbers should be."""


class DependencyError(LetsTalkError):
    """An optional program or package that is not installed."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; the name of its class where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
