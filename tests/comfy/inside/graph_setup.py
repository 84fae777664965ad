"""The bundled model and files, and graphs of them in API format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Graph = dict[str, dict[str, Any]]
DEMO = "demo (bundled)"
DEMO_FOLDER = Path(__file__).resolve().parents[3] / "letstalk_core" / "demo"
PORTRAIT, SPEECH = "ada (bundled demo portrait)", "hello (bundled demo speech)"


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def save_video(video: list[Any], prefix: str) -> dict[str, Any]:
    return node("SaveVideo", video=video, filename_prefix=prefix, format="auto", codec="auto")


def files(portrait: str = PORTRAIT, speech: str = SPEECH) -> Graph:
    """A picture and a recording."""
    return {
        "picture": node("LetsTalkLoadPortrait", image=portrait),
        "speech": node("LetsTalkLoadSpeech", audio=speech),
    }


def chain(
    side: int = 64, *, start: float = 0.0, seconds: float = 0.0, first_frame: int = 0, **chosen: str
) -> Graph:
    """From files to what a sampler needs: `model`, `vae` and `positive`. side: pixels; seconds: 0 is all."""
    cut = {"fps": 25.0, "silence_threshold": -60.0, "start_seconds": start, "length_seconds": seconds}
    return {
        **files(**chosen),
        "model": node("LetsTalkLoadDiT", model=DEMO, weight_dtype="default"),
        "vae": node("LetsTalkLoadAutoencoder", autoencoder=DEMO),
        "encoder": node("LetsTalkLoadAudioEncoder", audio_encoder=DEMO),
        "portrait": node("LetsTalkEncodePortrait", image=["picture", 0], vae=["vae", 0], width=side, height=side),
        "audio": node("LetsTalkEncodeAudio", audio=["speech", 0], audio_encoder=["encoder", 0], **cut),
        "positive": conditioning(first_frame),
    }


def conditioning(first_frame: Any, clip_frames: int = 16) -> dict[str, Any]:
    """Of the portrait and the speech of a `chain`."""
    inputs = {"portrait": ["portrait", 0], "audio": ["audio", 0]}
    return node("LetsTalkConditioning", **inputs, first_frame=first_frame, clip_frames=clip_frames)
