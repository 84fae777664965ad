"""Runs from start to end: to latents in memory, or to a video file that grows clip by clip."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import InputImpl
from einops import rearrange
from torch import Tensor

from ...letstalk_core.errors import ConfigError, MediaError, OutputError
from ...letstalk_core.generate.disk_space import with_shortage
from ...letstalk_core.generate.retake import plan_take, take_clips
from ...letstalk_core.generate.takes import take_folder
from ...letstalk_core.generate.work_folder import WorkFolder, resumable_clips
from ...letstalk_core.media.video.segments import SegmentedVideo, segment_clips, segment_path
from ...letstalk_core.media.video.tee import Tee
from ...letstalk_core.media.video.threaded import ThreadedSink
from ...letstalk_core.pixels import to_bytes
from ...letstalk_core.protocols import FrameSink
from ...letstalk_core.sampling.drift import DriftLog
from ...letstalk_core.sampling.long_video import Clip, remember
from .clip_run import ClipRun, first_frame
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
from .work import UNFINISHED, fingerprint, open_work, work_root

__all__ = ["IMAGES", "Part", "TalkingVideo", "render_latents", "render_video"]

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
    work_folder: str = "",
    unfinished: str = UNFINISHED[0],
    part: Part | None = None,
) -> TalkingVideo:
    """Sample, decode and encode clip by clip into a file of ComfyUI's temp folder.

    `audio` (ComfyUI's AUDIO) replaces the sound of the speech. It runs beside the whole recording, so what Encode
    Audio skipped is skipped in it; both are cut to the frames of this run.
    What is finished is safe in a work folder, from which the same run continues (see `work`). `part` is made anew
    in a video that is complete there.
    Raises: ConfigError, NumericalError, MediaError, OutputError; nothing is left of the file then.
    """
    if part is not None and not work_folder.strip():
        raise ConfigError("retake_to: needs the work_folder that the video was made with, to keep the rest of it")
    decoder = ClipDecoder(vae, run)
    everything = images == IMAGES[1]
    if everything:
        check_image_memory(run.frames, decoder.size)
    sound = _sound_of(run) if audio is None else _sound(audio, run.track.start_seconds)
    under = cut_sound(sound, run.first_frame, run.frames, run.fps)
    segment = segment_clips(run.fps, run.config.clip_frames)
    report = _report(run, node_id)
    with TempFiles(node_id) as files:
        found = fingerprint(run, vae, under)
        models = models_sha256(run.guider.model_patcher.model, vae, run.track)
        video = SegmentedVideo(
            files.result,
            run.fps,
            decoder.size,
            work_root(),  # until the folder has its name
            run.config.clip_frames * segment,
            audio=under,
            metadata=lambda: tags(settings or {}, models, work.takes, prompt, extra),
            **encoder_choice(crf),
            frames=run.frames,
        )
        work = open_work(found, video.settings, work_folder, unfinished)
        video.folder = work.folder
        sink = ThreadedSink(Tee([video, ClipMedia(report, files, run, decoder.size, sound, video)]))
        try:
            work.begin(found)
            if part is not None:
                pictures = _new_part(run, decoder, report, work, video, part, everything)
                sink.abort()
            else:
                pictures = _all_clips(run, decoder, report, work, sink, everything)
                sink.close()
        except BaseException as error:
            sink.abort()
            if isinstance(error, OutputError):
                error = _with_shortage(error, run, decoder, work, video)
            work.leave()
            raise error
        work.end()
    return TalkingVideo(InputImpl.VideoFromFile(str(files.result)), files.result, pictures)


def _all_clips(
    run: ClipRun, decoder: ClipDecoder, report: RunReport, work: WorkFolder, sink: ThreadedSink, everything: bool
) -> Tensor:
    """Sample what no earlier run has finished, and write its frames. Returns the pictures to give out."""
    safe = (lambda: 0) if everything else lambda: sink.held
    first = safe()
    sink.resume_at(first)
    pictures = torch.zeros(run.frames if everything else 1, *decoder.size, 3)
    start = run.plan[0].index

    def make(part: list[Clip], finished: Any) -> Any:
        return run.clips(
            on_step=lambda clip, step, denoised: report.step(clip - start, step, denoised),
            inspect=decoder.inspect,
            part=part,
            finished=finished,
        )

    segment = segment_clips(run.fps, run.config.clip_frames)
    for clip, latents, known in resumable_clips(work, run.plan, run.bank, segment, safe, make, run.drift):
        report.clip_sampled(clip.index - start)
        done = clip.first - run.first_frame
        if known and (done >= first or clip is run.plan[-1]):
            decoder.inspect(latents, clip.index)
        if done >= first:
            sink.write(to_bytes(decoder.frames))
        if everything:
            pictures[done : done + clip.count] = decoder.frames
        elif clip is run.plan[-1]:
            pictures = decoder.frames[-1:].clone()
    return pictures


@dataclass(frozen=True)
class Part:
    """Seconds `begin` to `end` of a video, to be made anew with other noise."""

    begin: float
    end: float
    seed: int


def _new_part(
    run: ClipRun,
    decoder: ClipDecoder,
    report: RunReport,
    work: WorkFolder,
    video: SegmentedVideo,
    part: Part,
    everything: bool,
) -> Tensor:
    """Make a part of a finished video anew, and join the video. Returns the pictures to give out."""
    if video.held != run.frames:
        raise ConfigError(
            f"work_folder: holds {video.held} of {run.frames} frames; run once without retake_to, with the same"
            " settings, to finish the video"
        )
    segment = segment_clips(run.fps, run.config.clip_frames)
    takes = work.takes
    take = plan_take(run.plan, run.fps, segment, part.begin, part.end, part.seed, takes)
    if take.number > len(takes):
        start, frames, drift = run.plan[0].index, [], DriftLog()
        clips = take_clips(
            work,
            run.plan,
            take,
            sample=run.make_sampler(
                lambda clip, step, denoised: report.step(clip - start, step, denoised), decoder.inspect, take.seed
            ),
            portrait=run.portrait,
            audio=first_frame,
            bank=copy.deepcopy(run.bank),
            clip_frames=run.config.clip_frames,
            fps=run.fps,
            drift=drift,
        )
        for clip, latents in clips:
            position = clip.index - start
            decoder.inspect(latents, clip.index)  # the last one is drawn to the old one once more
            frames.append(to_bytes(decoder.frames))
            if (position + 1) % segment == 0 or position == take.last:
                number, folder = position // segment, take_folder(work.folder)
                video.write_segment(segment_path(folder, number), torch.cat(frames))
                work.save_drift(number, drift.since(run.plan[number * segment].index), folder)
                frames = []
        work.finish_take()
    video.join(run.frames)
    return _kept_pictures(run, decoder, work, everything)


def _kept_pictures(run: ClipRun, decoder: ClipDecoder, work: WorkFolder, everything: bool) -> Tensor:
    """The pictures to give out of a finished work folder; the run then has the memory and scores of its end."""
    if run.bank.is_empty:
        run.bank.reset(run.portrait)
    pictures = torch.zeros(run.frames if everything else 1, *decoder.size, 3)
    for clip in run.plan:
        latents = work.load(clip)
        if latents is None:
            raise ConfigError(f"work_folder: {work.folder} lacks clip {clip.index + 1}; make the video again")
        remember(run.bank, clip, latents, run.portrait, run.drift)
        if everything or clip is run.plan[-1]:
            decoder.inspect(latents, clip.index)
            done = clip.first - run.first_frame
            pictures[done if everything else 0 :][: clip.count] = decoder.frames[0 if everything else -1 :]
    return pictures


def _with_shortage(
    error: OutputError, run: ClipRun, decoder: ClipDecoder, work: WorkFolder, video: SegmentedVideo
) -> OutputError:
    return with_shortage(
        error,
        work.folder,
        frames=run.frames,
        held=video.held,
        fps=run.fps,
        pixels=decoder.size[0] * decoder.size[1],
        segment_frames=video.segment_frames,
        clip_frames=run.config.clip_frames,
        keep=work.keep,
    )


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
