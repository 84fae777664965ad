"""Runs from start to end: to latents in memory, or to a video file that grows clip by clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import InputImpl
from einops import rearrange
from torch import Tensor

from ...letstalk_core.errors import MediaError
from ...letstalk_core.pixels import to_bytes
from ...letstalk_core.protocols import FrameSink
from ...letstalk_core.video.tee import Tee
from ...letstalk_core.video.threaded import ThreadedSink
from ...letstalk_core.video.writer import VideoWriter
from .clip_run import ClipRun
from .progress import RunReport
from .provenance import models_sha256, tags
from .video import (
    ClipDecoder,
    ClipMedia,
    TempFiles,
    check_image_memory,
    cut_sound,
    encoder_choice,
)

__all__ = ["IMAGES", "TalkingVideo", "render_latents", "render_video"]

IMAGES = ("last frame", "all frames")


def render_latents(run: ClipRun, node_id: str | None, vae: Any = None) -> Tensor:
    """Latents of all clips, (1, c, frames, h, w). With a VAE, clips are decoded too: looked at, and shown."""
    decoder = ClipDecoder(vae, run) if vae is not None else None
    report = _report(run, node_id)
    parts = []
    with TempFiles(node_id) as files:
        watch: FrameSink | None = None
        if decoder is not None:
            watch = ThreadedSink(ClipMedia(report, files, run, decoder.size, _sound_of(run)))
        try:
            for position, latents in _clips(run, report, decoder):
                parts.append(rearrange(latents, "b f c h w -> b c f h w"))
                if watch is None or decoder is None:
                    report.clip_done(position)
                else:
                    watch.write(to_bytes(decoder.frames))
            if watch is not None:
                watch.close()
        except BaseException:
            if watch is not None:
                watch.abort()
            raise
    return torch.cat(parts, dim=2).to(comfy.model_management.intermediate_device())


@dataclass(frozen=True)
class TalkingVideo:
    """A finished run: `video` is ComfyUI's VIDEO over the file, `images` (n, h, w, 3) in 0..1."""

    video: Any
    path: Path
    images: Tensor


def render_video(
    run: ClipRun,
    vae: Any,
    *,
    node_id: str | None,
    images: str = IMAGES[0],
    crf: int = 18,
    audio: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    prompt: Any = None,
    extra: Any = None,
) -> TalkingVideo:
    """Sample, decode and encode clip by clip into a file of ComfyUI's temp folder.

    `audio` (ComfyUI's AUDIO) replaces the sound of the speech. It runs beside the whole recording, so what Encode
    Audio skipped is skipped in it; both are cut to the frames of this run.
    Raises: ConfigError, NumericalError, MediaError, OutputError; nothing is left of the file then.
    """
    decoder = ClipDecoder(vae, run)
    everything = images == IMAGES[1]
    if everything:
        check_image_memory(run.frames, decoder.size)
    pictures = torch.zeros(run.frames if everything else 1, *decoder.size, 3)
    sound = _sound_of(run) if audio is None else _sound(audio, run.track.start_seconds)
    report = _report(run, node_id)
    done = 0
    with TempFiles(node_id) as files:
        writer = VideoWriter(
            files.result,
            run.fps,
            decoder.size,
            audio=cut_sound(sound, run.first_frame, run.frames, run.fps),
            metadata=tags(settings or {}, models_sha256(run.guider.model_patcher.model, vae), prompt, extra),
            **encoder_choice(crf),
        )
        sink = ThreadedSink(Tee([writer, ClipMedia(report, files, run, decoder.size, sound)]))
        try:
            for _, latents in _clips(run, report, decoder):
                sink.write(to_bytes(decoder.frames))
                if everything:
                    pictures[done : done + latents.shape[1]] = decoder.frames
                else:
                    pictures = decoder.frames[-1:].clone()
                done += latents.shape[1]
            sink.close()
        except BaseException:
            sink.abort()
            raise
    return TalkingVideo(InputImpl.VideoFromFile(str(files.result)), files.result, pictures)


def _report(run: ClipRun, node_id: str | None) -> RunReport:
    return RunReport(node_id, run.plan, run.steps, run.fps, run.guider.model_patcher, run.rgb)


def _clips(run: ClipRun, report: RunReport, decoder: ClipDecoder | None) -> Any:
    """(position in this run, latents) of each clip, with progress. A cancelled run ends within one step."""
    start = run.plan[0].index
    clips = run.clips(
        on_step=lambda clip, step, denoised: report.step(clip - start, step, denoised),
        inspect=decoder.inspect if decoder is not None else None,
    )
    for clip, latents in clips:
        report.clip_sampled(clip.index - start)
        yield clip.index - start, latents


def _sound_of(run: ClipRun) -> tuple[Tensor, int] | None:
    waveform = run.track.waveform
    return None if waveform is None else (waveform, run.track.sample_rate)


def _sound(audio: dict[str, Any], start_seconds: float) -> tuple[Tensor, int]:
    """The first recording of an AUDIO from `start_seconds` on: (channels, samples) and its rate."""
    waveform, rate = audio["waveform"], int(audio["sample_rate"])
    if waveform.ndim != 3 or not waveform.numel():
        raise MediaError(f"audio: has shape {list(waveform.shape)}; needs (batch, channels, samples) with sound")
    first, samples = round(start_seconds * rate), waveform.shape[-1]
    if first >= samples:
        raise MediaError(
            f"audio: lasts {samples / rate:.2f} s, and start_seconds of Encode Audio skips {start_seconds:g} s of"
            " it; wire a sound as long as the whole recording"
        )
    return waveform[0, :, first:], rate
