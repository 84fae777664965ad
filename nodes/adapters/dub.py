"""The core's dubbing inside ComfyUI: VIDEO and AUDIO, the progress bar, and work folders that outlive a cancel.

The networks of a bundle are small and run as the core loads them, on ComfyUI's device, where it makes room.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
from comfy_api.latest import InputImpl, Types
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.files import file_sha256
from ...letstalk_core.generate.dubbing import Dubbing
from ...letstalk_core.generate.progress import Progress
from ...letstalk_core.generate.settings import GenerateSettings
from ...letstalk_core.media.audio.decode import WaveformSource
from ...letstalk_core.media.video.reader import probe, read_video
from ...letstalk_core.media.video.segments import SegmentedVideo, segment_clips
from ...letstalk_core.networks.load import load_bundle
from ...letstalk_core.sampling.guidance import as_scale
from .folders import resolve_bundle
from .pictures import rgb_image
from .progress import check_interrupt
from .provenance import tags
from .video import TempFiles, encoder_choice, sound_behind
from .video_input import video_file
from .work import UNFINISHED, open_work, work_root

CRF, FPS = 18, 25.0
ROOM = 2  # times the size of the weights, which ComfyUI frees on a GPU


def dub_video(
    *,
    audio: dict[str, Any],
    model: str,
    seed: int,
    length: str,
    node_id: str | None,
    video: Any = None,
    images: Tensor | None = None,
    fps: float = 25.0,
    steps: int = 0,
    audio_scale: Any = 0.0,
    unfinished: str = UNFINISHED[0],
    settings: dict[str, Any] | None = None,
    prompt: Any = None,
    extra: Any = None,
) -> tuple[Any, Path, int]:
    """ComfyUI's VIDEO of a dubbed film, its file, and how many frames it has.

    A run that is cancelled keeps what is finished, and the same one goes on from there. Raises: LetsTalkError.
    """
    if (video is None) == (images is None):
        raise ConfigError("video, images: connect one of them, and not both")
    if images is not None:
        parts = Types.VideoComponents(images=rgb_image(images, "images"), frame_rate=Fraction(str(fps)))
        video = InputImpl.VideoFromComponents(parts)
    film = video_file(video)
    sound = sound_behind(audio)
    folder, device = resolve_bundle(model), mm.get_torch_device()
    mm.free_memory(ROOM * sum(path.stat().st_size for path in folder.glob("*.safetensors")), device)
    bundle = load_bundle(folder, device=device)
    chosen = GenerateSettings(
        fps=FPS, steps=steps or None, seed=seed, cfg_audio=as_scale(audio_scale) or None
    ).resolve(bundle)
    assert chosen.fps is not None
    first = next(iter(read_video(film, fps=chosen.fps, max_frames=1)))
    clip_frames = bundle.dit.config.clip_frames
    with TempFiles(node_id) as files:
        result = SegmentedVideo(
            files.result,
            chosen.fps,
            (first.shape[0], first.shape[1]),
            work_root(),  # until the folder has its name
            clip_frames * segment_clips(chosen.fps, clip_frames),
            audio=sound,
            metadata=lambda: tags(settings or {}, bundle.hashes(), [], prompt, extra),
            **encoder_choice(CRF),
        )
        heard = hashlib.sha256(audio["waveform"].contiguous().numpy().tobytes()).hexdigest()
        about = {"film": file_sha256(film), "audio": heard, "length": length, **chosen.to_dict()}
        work = open_work({**about, "models": bundle.hashes()}, result.settings, "", unfinished)
        result.folder = work.folder
        frames = probe(film).frames or 0
        report = _Report(max(1, frames))
        summary = Dubbing(bundle).dub(
            film,
            WaveformSource(*sound),
            result,
            chosen,
            length=length,
            progress=report.made,
            work=work,
            followed=report.followed,
        )
    return InputImpl.VideoFromFile(str(files.result)), files.result, summary.frames


class _Report:
    """ComfyUI's progress bar: the first third follows the face, the rest makes the mouths. Both stop when the user
    cancels."""

    def __init__(self, frames: int) -> None:
        self.frames, self.bar = frames, comfy.utils.ProgressBar(300)

    def followed(self, frames: int) -> None:
        check_interrupt()
        self.bar.update_absolute(min(100, 100 * frames // self.frames))

    def made(self, now: Progress) -> None:
        check_interrupt()
        done = (now.clip + now.step / max(1, now.steps)) / max(1, now.clips)
        self.bar.update_absolute(100 + min(200, round(200 * done)))
