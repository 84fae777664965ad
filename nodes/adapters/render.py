"""Runs from start to end: to latents in memory, or to a video file that grows clip by clip."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy.sd import VAE
from comfy_api.latest import InputImpl
from einops import rearrange
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.generate.retake import Retake, retake
from ...letstalk_core.generate.run import Outcome, Run, generate
from ...letstalk_core.generate.sinks import DecodingSink, LatentSink
from ...letstalk_core.generate.work_folder import WorkFolder
from ...letstalk_core.media.video.segments import SegmentedVideo
from ...letstalk_core.media.video.tee import Tee
from ...letstalk_core.media.video.threaded import ThreadedSink
from ...letstalk_core.pixels import to_bytes
from ...letstalk_core.protocols import FrameSink
from ...letstalk_core.sampling.clip import Clip
from ...letstalk_core.sampling.steady import steady
from .carry import SIZES
from .clip_run import ClipRun
from .clip_sampler import ComfyClipSampler
from .progress import RunReport
from .provenance import models_sha256, tags
from .unfinished import forget_origin, note_origin
from .video import ClipDecoder, ClipMedia, TempFiles, check_image_memory, cut_sound, encoder_choice, sound_behind
from .work import UNFINISHED, fingerprint, open_work, work_root

IMAGES = ("last frame", "all frames")


def render_latents(run: ClipRun, node_id: str | None, vae: VAE | None = None) -> Tensor:
    """Latents of all clips, (1, c, frames, h, w). With a VAE, clips are decoded too: looked at, and shown."""
    decoder = ClipDecoder(vae, run) if vae is not None else None
    report = _report(run, node_id, decodes=decoder is not None)
    with TempFiles(node_id) as files:
        sink = LatentSink()
        if decoder is not None:
            media = ClipMedia(report, files, run, decoder.size, _sound_of(run))
            sink.watch = PictureSink(ThreadedSink(media), decoder, run)
        _finish(generate(_core_run(run, report, decoder), sink))
    parts = [rearrange(latents, "b f c h w -> b c f h w") for latents in sink.clips]
    return torch.cat(parts, dim=2).to(comfy.model_management.intermediate_device())


@dataclass(frozen=True)
class TalkingVideo:
    """A finished run: `video` is ComfyUI's VIDEO over the file, `images` (n, h, w, 3) in 0..1."""

    video: Any
    path: Path
    images: Tensor


def render_video(
    run: ClipRun,
    vae: VAE,
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
    detail: str = SIZES[0],
    references: Tensor | None = None,
    puppet: bool = True,
) -> TalkingVideo:
    """Sample, decode and encode clip by clip into a file of ComfyUI's temp folder.

    `audio` (ComfyUI's AUDIO) replaces the sound of the speech. It runs beside the whole recording, so what Encode
    Audio skipped is skipped in it; both are cut to the frames of this run.
    What is finished is safe in a work folder, from which the same run continues (see `work`). `part` is made anew
    in a video that is complete there. `detail`, `references` and `puppet`: see `ClipDecoder`.
    Raises: ConfigError, NumericalError, MediaError, OutputError; nothing is left of the file then.
    """
    if part is not None and not work_folder.strip():
        raise ConfigError("retake_to: needs the work_folder that the video was made with, to keep the rest of it")
    decoder = ClipDecoder(vae, run, detail, references, puppet)
    everything = images == IMAGES[1]
    if everything:
        check_image_memory(run.frames, decoder.size)
    sound = _sound_of(run) if audio is None else sound_behind(audio, run.track.start_seconds)
    under = cut_sound(sound, run.first_frame, run.frames, run.fps)
    report = _report(run, node_id)
    work: WorkFolder
    with TempFiles(node_id) as files:
        core = _core_run(run, report, decoder, {**fingerprint(run, vae, under), **decoder.fingerprint})
        models = models_sha256(run.guider.model_patcher.model, vae, run.track)
        video = SegmentedVideo(
            files.result,
            run.fps,
            decoder.size,
            work_root(),  # until the folder has its name
            core.clip_frames * core.segment,
            audio=under,
            metadata=lambda: tags(settings or {}, models, work.takes, prompt, extra),
            **encoder_choice(crf),
            frames=run.frames,
        )
        work = open_work(core.fingerprint, video.settings, work_folder, unfinished)
        video.folder = work.folder
        frames = ThreadedSink(Tee([video, ClipMedia(report, files, run, decoder.size, sound, video)]))
        sink = PictureSink(frames, decoder, run, everything)
        if part is None:
            note_origin(work, run, node_id, prompt)
            _finish(generate(core, sink, work))
            forget_origin(work)
        else:
            again = Retake(
                seconds=(part.begin, part.end),
                seed=part.seed,
                sample=_sampler(run, report, decoder, part.seed),
                video=video,
                decode=lambda latents, clip: to_bytes(decoder(latents, clip)),
                watch=report,
                remedy="run once without retake_to, with the same settings, to finish the video",
            )
            retake(core, sink, work, again)
    return TalkingVideo(InputImpl.VideoFromFile(str(files.result)), files.result, sink.pictures)


class PictureSink(DecodingSink):
    """Frames as bytes to a sink, and as IMAGE to `pictures`: all of them, or the last one."""

    def __init__(self, sink: FrameSink, decoder: ClipDecoder, run: ClipRun, everything: bool = False) -> None:
        super().__init__(sink, decoder)
        self.plan, self.everything = run.plan, everything
        self.pictures = torch.zeros(run.frames if everything else 1, *decoder.size, 3)

    @property
    def held(self) -> int:
        """Nothing, if the pictures of all clips are wanted, whether the video holds them or not."""
        return 0 if self.everything else super().held

    def resume_at(self, frame: int) -> None:
        super().resume_at(super().held)

    def write(self, latents: Tensor, clip: Clip) -> None:
        done = clip.first - self.plan[0].first
        if done < self.frames and clip != self.plan[-1] and not self.everything:
            return
        pictures = self.decode(latents, clip)
        if self.everything:
            self.pictures[done : done + clip.count] = pictures
        elif clip == self.plan[-1]:
            self.pictures = pictures[-1:].clone()
        if done >= self.frames:
            self.sink.write(to_bytes(pictures))
            self.frames += clip.count


@dataclass(frozen=True)
class Part:
    """Seconds `begin` to `end` of a video, to be made anew with other noise."""

    begin: float
    end: float
    seed: int


def _core_run(
    run: ClipRun, report: RunReport, decoder: ClipDecoder | None, found: dict[str, Any] | None = None
) -> Run:
    """A run as the core makes it; `found` is its fingerprint."""
    return Run(
        plan=run.plan,
        portrait=run.portrait,
        bank=run.bank,
        sample=_sampler(run, report, decoder),
        clip_frames=run.config.clip_frames,
        fps=run.fps,
        size=decoder.size if decoder is not None else (0, 0),
        seed=run.seed,
        fingerprint=found or {},
        watch=report,
        drift=run.drift,
        steady=decoder is not None and decoder.draws_face,
    )


def _sampler(
    run: ClipRun, report: RunReport, decoder: ClipDecoder | None, seed: int | None = None
) -> ComfyClipSampler:
    """What samples a clip, for a retake with another seed."""
    noise = run.noise

    def inspect(latents: Tensor, clip: Clip) -> str | None:
        """Of what will be shown, so that it is decoded once."""
        assert decoder is not None
        latents = latents[:, : clip.count]
        return decoder.inspect(steady(latents, run.bank.latest) if decoder.draws_face else latents, clip)

    if seed is not None and hasattr(noise, "seed"):
        noise = copy.copy(noise)
        noise.seed = seed
    return ComfyClipSampler(
        run.guider,
        run.sampler,
        run.sigmas,
        seed=run.seed if seed is None else seed,
        noise=noise,
        on_step=report.step,
        inspect=inspect if decoder is not None else None,
        clip_name=run.clip_name,
        movement_seed=run.seed,  # of another take, too: it goes on from the clips before it
    )


def _finish(outcome: Outcome) -> None:
    """In a graph, a part of a video is no result."""
    if outcome.interrupted:
        raise KeyboardInterrupt


def _report(run: ClipRun, node_id: str | None, decodes: bool = True) -> RunReport:
    return RunReport(node_id, run.plan, run.steps, run.fps, run.guider.model_patcher, run.rgb, decodes)


def _sound_of(run: ClipRun) -> tuple[Tensor, int] | None:
    waveform = run.track.waveform
    return None if waveform is None else (waveform, run.track.sample_rate)
