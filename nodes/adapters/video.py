"""Finished clips into pictures and files, one clip at a time: decoding, the video, and what the browser plays."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import comfy.model_management
import folder_paths
import torch
from comfy.sd import VAE
from einops import rearrange
from torch import Tensor

from ...letstalk_core.errors import ConfigError, MediaError, NumericalError
from ...letstalk_core.generate.detail import PortraitDetail
from ...letstalk_core.generate.face_motion import FaceMotion
from ...letstalk_core.generate.work_folder import tensor_sha256
from ...letstalk_core.media.portrait.crop import fit_to
from ...letstalk_core.media.portrait.likeness import compare_portrait
from ...letstalk_core.media.video.container import video_tags
from ...letstalk_core.media.video.join import Joiner
from ...letstalk_core.media.video.segments import SegmentedVideo, segment_path
from ...letstalk_core.media.video.writer import VideoWriter, available_encoder
from ...letstalk_core.networks.numerical_guard import NumericalGuard
from ...letstalk_core.pixels import to_bytes
from ...letstalk_core.sampling.clip import Clip
from .carry import OFF, SIZES, aligned, apply, face_motion, masks_of, with_detail
from .clip_run import ClipRun
from .progress import RunReport
from .vae import float32_vae

GIB = 2**30
MEDIA_SECONDS = 2.0  # of video in one file for the browser
KEPT_RUNS = 8  # whose files for the browser stay: other tabs may still play them
FLAT = 2 / 255  # deviation of brightness below which a picture shows nothing

log = logging.getLogger(__name__)


class ClipDecoder:
    """Decodes clips with ComfyUI's VAE and judges them: (latents, clip) -> frames (count, h, w, 3) in 0..1, CPU.

    A clip that is NaN, black or of one colour, though the portrait is not, is decoded again in float32. This
    follows from its latents alone, so a resumed run does the same. Raises: NumericalError if it stays so.
    `detail` is one of `carry.SIZES`, for frames of that size with the portrait's own detail where the VAE's folder
    has masks and the run knows the picture, or `carry.OFF`. `references`: IMAGE of more pictures of the person,
    for their detail. `puppet`: a photograph's face is drawn from it, where the folder has lips.
    `fingerprint`: what the frames depend on besides the run.
    """

    def __init__(
        self, vae: VAE, run: ClipRun, detail: str = OFF, references: Tensor | None = None, puppet: bool = False
    ) -> None:
        channels = getattr(vae, "latent_channels", None)
        if channels != run.config.in_channels:
            raise ConfigError(
                f"vae: has {channels} latent channels, the model works on {run.config.in_channels}; load the"
                " autoencoder that belongs to the model"
            )
        self.vae, self._name, self._guard = vae, run.clip_name, NumericalGuard(float32_vae)
        self._last: tuple[Tensor, Tensor, str | None] | None = None  # latents, their frames, what is wrong
        picture = _decode(vae, rearrange(run.portrait, "1 c h w -> 1 1 c h w"))
        self.size: tuple[int, int] = (picture.shape[1], picture.shape[2])
        if run.picture is not None:
            run.drift.likeness = compare_portrait(fit_to(run.picture, self.size), to_bytes(picture[0])).score
        self._flat_portrait = bool(_contrast(picture)[0] < 2 * FLAT)
        self.fingerprint: dict[str, Any] = {"detail": detail}
        if references is not None:
            self.fingerprint["references"] = tensor_sha256(references)
        self._detail = _detail(vae, run, self.size, detail, references, face_motion(vae, run) if puppet else None)
        self.draws_face = self._detail is not None and self._detail.face is not None
        self.fingerprint["puppet"] = self.draws_face
        if self._detail is not None:
            self.size = self._detail.size

    def __call__(self, latents: Tensor, clip: Clip) -> Tensor:
        frames, cause = self._look(latents, clip)
        if cause is not None:
            raise NumericalError(f"{self._name(clip)}: {cause}, in float32, too; check the autoencoder's file")
        return frames

    def inspect(self, latents: Tensor, clip: Clip) -> str | None:
        """What is wrong with the frames that the plan wants of a clip, or None; these wait to be asked for."""
        return self._look(latents, clip)[1]

    def _look(self, latents: Tensor, clip: Clip) -> tuple[Tensor, str | None]:
        if self._last is None or not torch.equal(self._last[0], latents):
            found = self._guard.attempt(
                self._name(clip), self.vae, lambda vae: _decode(vae, latents), judge=self._judge
            )
            frames, cause = found
            if self._detail is not None and cause is None:
                frames = apply(self._detail, frames, clip.first)
            self._last = (latents, frames, cause)
        return self._last[1:]

    def _judge(self, frames: Tensor) -> str | None:
        if not torch.isfinite(frames).all():
            return "the autoencoder gave NaN or infinity"
        worst = int(_contrast(frames).argmin())
        if self._flat_portrait or _contrast(frames)[worst] >= FLAT:
            return None
        look = "black" if frames[worst].mean() < FLAT else "of one colour"
        return f"its frame {worst + 1} is {look}, which the portrait is not"


def _decode(vae: VAE, latents: Tensor) -> Tensor:
    images: Tensor = vae.decode(rearrange(latents, "1 f c h w -> 1 c f h w"))
    return images.reshape(-1, *images.shape[-3:]).to("cpu", torch.float32)


def _detail(
    vae: VAE,
    run: ClipRun,
    size: tuple[int, int],
    choice: str,
    references: Tensor | None,
    motion: FaceMotion | None,
) -> PortraitDetail | None:
    carry = None if choice == OFF else masks_of(vae)
    if carry is None or run.picture is None:
        why = "the VAE has no carry.safetensors beside its file"
        if carry is not None:
            why = "the portrait does not come from LetsTalk Encode Portrait"
        if choice in SIZES[1:]:
            raise ConfigError(f"detail: {choice!r} cannot be made: {why}; choose {SIZES[0]!r}")
        if references is not None:
            why = "detail is off" if choice == OFF else why
            raise ConfigError(f"references: cannot be used: {why}; change that, or wire nothing here")
        return None
    return with_detail(carry, vae, run.picture, size, choice, aligned(references, run.picture), motion)


def _contrast(frames: Tensor) -> Tensor:
    """Deviation of brightness in each frame: (n, h, w, 3) -> (n,)."""
    return frames.mean(-1).flatten(1).std(1, correction=0)


class ClipMedia:
    """A FrameSink for the browser: a short file for every two seconds of finished clips, told to the report.

    One `write` is one clip. Watching is a service: whatever goes wrong with it is logged and ends it, not the run.
    With `video`, which gets the same frames first, its segments are shown, and nothing is encoded twice.
    """

    def __init__(
        self,
        report: RunReport,
        files: TempFiles,
        run: ClipRun,
        size: tuple[int, int],
        sound: Any,
        video: SegmentedVideo | None = None,
    ) -> None:
        self._video = video
        self._shown = 0  # frames
        self._report, self._files, self._run, self._size, self._sound = report, files, run, size, sound
        self._writer: VideoWriter | None = None
        self._working = report.server is not None
        self._clip = self._done = 0

    @property
    def held(self) -> int:
        """Nothing of earlier runs is needed for watching this one."""
        return self._run.frames

    def resume_at(self, frame: int) -> None:
        self._done = self._shown = self._report.frames_done = frame
        self._clip = sum(clip.first - self._run.first_frame < frame for clip in self._run.plan)

    def write(self, frames: Tensor) -> None:
        media = None
        if self._working:
            try:
                media = self._write(frames) if self._video is None else self._join(frames, self._video)
            except Exception as error:
                self._give_up(error)
        self._report.clip_done(self._clip, media)
        self._clip += 1

    def _write(self, frames: Tensor) -> dict[str, str] | None:
        if self._writer is None:
            path = self._files.next_piece()
            count = min(self._run.frames - self._done, round(MEDIA_SECONDS * self._run.fps) + len(frames))
            sound = cut_sound(self._sound, self._run.first_frame + self._done, count, self._run.fps)
            self._writer = VideoWriter(path, self._run.fps, self._size, audio=sound)
        self._writer.write(frames)
        self._done += len(frames)
        if self._writer.frames < MEDIA_SECONDS * self._run.fps and self._done < self._run.frames:
            return None
        writer, self._writer = self._writer, None
        writer.close()
        return {"filename": writer.path.name, "subfolder": "", "type": "temp"}

    def _join(self, frames: Tensor, video: SegmentedVideo) -> dict[str, str] | None:
        self._done += len(frames)
        if self._done % video.segment_frames and self._done < self._run.frames:
            return None
        path, count = self._files.next_piece(), self._done - self._shown
        sound = cut_sound(self._sound, self._run.first_frame + self._shown, count, self._run.fps)
        joiner = Joiner(path, video.fps, sound, video_tags({}))
        try:
            while joiner.frames < count:
                joiner.add(segment_path(video.folder, (self._shown + joiner.frames) // video.segment_frames))
            joiner.close()
        finally:
            joiner.abort()
        self._shown = self._done
        return {"filename": path.name, "subfolder": "", "type": "temp"}

    def close(self, partial: bool = False) -> None:
        try:
            if self._writer is not None:
                self._writer.close(partial=partial)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning("LetsTalk: clips are not shown while the run goes on: %s: %s", type(error).__name__, error)
        self.abort()

    def abort(self) -> None:
        self._working = False
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()


class TempFiles:
    """Names in ComfyUI's temp folder for one run of one node: `with TempFiles(node_id) as files`.

    A finished video stays for as long as the folder, which ComfyUI empties when it starts and stops: its history
    still plays it. Pieces for watching go when `KEPT_RUNS` runs of any node have ended after theirs.
    """

    _ended: ClassVar[deque[list[Path]]] = deque()  # pieces of each run, the oldest first

    def __init__(self, node_id: str | None) -> None:
        node = re.sub(r"[^0-9A-Za-z]+", "-", str(node_id or "x"))
        self._stem = f"letstalk_{node}_{time.time_ns():x}"
        self._folder = Path(folder_paths.get_temp_directory())
        self._pieces: list[Path] = []

    @property
    def result(self) -> Path:
        return self._folder / f"{self._stem}.mp4"

    def next_piece(self) -> Path:
        """A new name for a file to watch."""
        self._pieces.append(self._folder / f"{self._stem}_clip{len(self._pieces):05d}.mp4")
        return self._pieces[-1]

    def __enter__(self) -> TempFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.append(self._pieces)
        while len(self._ended) > KEPT_RUNS:
            for path in self._ended.popleft():
                _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows keeps files that a browser or a player still reads
        path.unlink()


def check_image_memory(frames: int, size: tuple[int, int]) -> None:
    """Warn of frames that fill memory as IMAGE. Raises: ConfigError when they cannot fit."""
    needed = frames * size[0] * size[1] * 3 * 4
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    text = f"images: all {frames} frames of {size[1]}x{size[0]} need {needed / GIB:.1f} GiB of memory as IMAGE"
    if needed > free:
        raise ConfigError(
            f"{text}, {free / GIB:.1f} GiB are free; work on the video output instead of images, or set max_frames"
        )
    if needed > GIB:
        log.warning("LetsTalk: %s; the video output needs none", text)


def sound_behind(audio: dict[str, Any], start_seconds: float = 0.0) -> tuple[Tensor, int]:
    """The first recording of an AUDIO from a moment on: (channels, samples) and its rate. Raises: MediaError."""
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


def cut_sound(sound: tuple[Tensor, int] | None, first: int, count: int, fps: float) -> tuple[Tensor, int] | None:
    """The part of a waveform (channels, samples) under frames first..first+count-1; silence behind its end."""
    if sound is None:
        return None
    waveform, rate = sound
    part = waveform[:, round(first * rate / fps) : round((first + count) * rate / fps)]
    return (part if part.shape[1] else waveform.new_zeros(len(waveform), 1)), rate


def encoder_choice(crf: int) -> dict[str, Any]:
    """Keywords for a VideoWriter; only x264 knows a constant rate factor."""
    encoder = available_encoder()
    options = {"crf": str(crf), "preset": "veryfast"} if encoder == "libx264" else None
    return {"encoder": encoder, "encoder_options": options}
