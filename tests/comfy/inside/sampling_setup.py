"""The bundled model and what renders a video with it; runs over noise as speech."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import torch
from graph_setup import DEMO_FOLDER
from torch import Tensor

RATE = 16_000


def make_kit(sub: Callable[[str], ModuleType]) -> Any:
    """Loaded demo networks and the modules under test."""
    load_portrait = sub("letstalk_core.media.portrait.image").load_portrait
    with torch.inference_mode():
        return SimpleNamespace(
            patcher=sub("nodes.adapters.model").load_dit(DEMO_FOLDER / "dit.safetensors"),
            vae=sub("nodes.adapters.vae").load_vae(DEMO_FOLDER / "autoencoder.safetensors"),
            run=sub("nodes.adapters.clip_run"),
            render=sub("nodes.adapters.render"),
            video=sub("nodes.adapters.video"),
            progress=sub("nodes.adapters.progress"),
            nodes=sub("nodes.sampling"),
            errors=sub("letstalk_core.errors"),
            checkpoint=sub("letstalk_core.networks.checkpoint"),
            files=sub("letstalk_core.files"),
            AudioTrack=sub("letstalk_core.media.audio.track").AudioTrack,
            portrait=load_portrait(DEMO_FOLDER / "portraits" / "ada.png"),
            fit_to=sub("letstalk_core.media.portrait.crop").fit_to,
        )


def prepare(kit: Any, frames: int, size: tuple[int, int] = (64, 64), first: int = 0, **inputs: Any) -> Any:
    """A run over noise as speech, with a sound as long as its frames. size: height, width in pixels."""
    generator = torch.Generator().manual_seed(1)
    sound = 0.1 * torch.randn(1, round(frames / 25 * RATE), generator=generator)
    states = torch.randn(frames, 3, 128, generator=generator)
    track = kit.AudioTrack(states, 25.0, waveform=sound, sample_rate=RATE)
    latent = kit.vae.encode(kit.fit_to(kit.portrait, size)[None].float() / 255)
    entry = {
        "reference_latents": [latent],
        "letstalk_audio": track,
        "letstalk_first_frame": first,
        "letstalk_audio_gain": 1.0,
        "letstalk_portrait_gain": 1.0,
    }
    defaults = {"seed": 1, "steps": 1, "schedule": "model", "audio_scale": 1.0, "portrait_scale": 1.0}
    positive = [[torch.zeros(1, 1, 1), entry]]
    return kit.run.prepare_run(**{**defaults, "model": kit.patcher, "positive": positive, **inputs})


def standalone_conditions(
    sub: Callable[[str], ModuleType], projection: Any, track: Any, portrait: Tensor, clip_frames: int, seed: int
) -> Callable[[Tensor, Any], Any]:
    """Conditions of a clip as the standalone pipeline makes them, of memory and clip."""
    moves = sub("letstalk_core.sampling.motion").Movement(projection.config.movement, seed=seed)
    made = sub("letstalk_core.networks.transformer.conditions").Conditions

    def conditions(memory: Tensor, clip: Any) -> Any:
        heard = track.windows(clip.first, clip_frames, projection.config.window)
        movement = projection.movement_of(moves.rows(clip.first, clip_frames)[None])
        return made(portrait=portrait, audio=projection(heard[None]), memory=memory, movement=movement)

    return conditions


def streams(path: Path) -> tuple[int, int, float]:
    """Frames, audio samples at the stream's rate, and seconds of sound of a file."""
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        return frames, samples, samples / stream.rate


def temp_files(base: Path) -> set[str]:
    return {path.name for path in (base / "temp").iterdir() if "letstalk_" in path.name}


class Server:
    """A server that keeps what is sent."""

    client_id = "someone"

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        assert (event, sid) == ("letstalk.clip", "someone")
        self.sent.append(json.loads(json.dumps(data)))
