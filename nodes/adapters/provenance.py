"""What a finished video says of itself: that it is generated, by which files, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.cli_args import args

from ...letstalk_core import __version__
from ...letstalk_core.files import known_sha256
from ...letstalk_core.generate.retake import retake_details
from ...letstalk_core.media.audio.track import AudioTrack
from ...letstalk_core.media.video.container import AI_MARKER
from ...letstalk_core.networks.load import OPTIONAL


def models_sha256(model: Any, vae: Any, track: AudioTrack) -> dict[str, str]:
    """Hashes of the files of a LetsTalk model, a VAE and what encoded the speech, where these are known."""
    paths = {
        "dit": getattr(model, "path", None),
        "autoencoder": getattr(vae, "path", None),
        "audio_encoder": track.encoder_file,
    }
    if getattr(vae, "path", None) is not None:
        paths |= {kind: vae.path.with_name(f"{kind}.safetensors") for kind in OPTIONAL}
    return {name: known_sha256(path) for name, path in paths.items() if path is not None and path.is_file()}


def plain_values(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those inputs of a node that a file can tell: numbers, texts and lists of numbers, not the CONDITIONING."""

    def plain(value: Any) -> bool:
        numbers = isinstance(value, list) and all(isinstance(part, (int, float)) for part in value)
        return numbers or isinstance(value, (int, float, str))

    return {name: value for name, value in inputs.items() if plain(value)}


def tags(
    settings: Mapping[str, Any], models: Mapping[str, str], takes: list[Any], prompt: Any, extra: Any
) -> dict[str, Any]:
    """Metadata of a video, as the standalone program writes it; values that are not text become JSON.

    `takes`: parts that were made anew, as the work folder has them. The graph too, as ComfyUI's own nodes save it,
    unless the user switched that off.
    """
    details: dict[str, Any] = {"version": __version__, "models_sha256": dict(models), "settings": dict(settings)}
    if takes:
        details["retakes"] = retake_details(takes)
    result: dict[str, Any] = {
        "title": "LetsTalk",
        "comment": f"{AI_MARKER}, made by LetsTalk {__version__}",
        "letstalk": details,
    }
    if not args.disable_metadata:
        result |= {} if prompt is None else {"prompt": prompt}
        result |= extra or {}
    return result
