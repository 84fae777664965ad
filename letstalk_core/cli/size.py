"""`--size`: the size of the video, which carry may make of the frames that the network samples."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal, Union

from ..errors import ConfigError
from ..generate.settings import GenerateSettings
from ..networks.load import ModelBundle

OWN: Literal["own"] = "own"
Size = Union[tuple[int, int], Literal["own"], None]


def parse_size(text: str | None) -> Size:
    """ "512" or "384x512" (width x height) -> (height, width). Raises: ConfigError."""
    if text is None or text == OWN:
        return text and OWN
    match = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", text)
    if match is None:
        raise ConfigError(f"size {text!r} must be a number of pixels such as 256, WIDTHxHEIGHT, or own")
    width = int(match[1])
    return int(match[2] or width), width


def choose_size(settings: GenerateSettings, wanted: Size, bundle: ModelBundle) -> GenerateSettings:
    """Settings for a video of this size. With carry the network samples at the size that it was trained at, if the
    shape is the same, and the rest is the portrait's; "own" is left to who knows the portrait.

    Raises: ConfigError for "own" without carry.
    """
    carries = settings.carry and bundle.carry is not None
    if wanted == OWN and not carries:
        raise ConfigError(
            "--size own: needs a model folder with carry.safetensors, and not --no-carry; give a number of pixels"
        )
    if wanted is None or wanted == OWN:
        return settings
    trained = settings.resolve(bundle).size
    assert trained is not None
    same_shape = wanted[0] * trained[1] == wanted[1] * trained[0]
    return replace(settings, output_size=wanted) if carries and same_shape else replace(settings, size=wanted)
