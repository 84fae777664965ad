"""What LetsTalk finds on this machine, as lines of text; it never fails because something optional is missing."""

from __future__ import annotations

import functools
import platform
import time
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management as mm
import comfy.sample
import comfy.samplers
import comfyui_version
import torch
from comfy.cli_args import args

from ...letstalk_core import __version__
from ...letstalk_core.errors import DependencyError, first_line
from ...letstalk_core.files import known_sha256
from ...letstalk_core.media.audio.track import AudioTrack
from ...letstalk_core.media.portrait.detect import WEIGHTS_URL, cached_weights
from ...letstalk_core.networks.checkpoint import CheckpointHeader, read_header
from ...letstalk_core.networks.config import Config
from ...letstalk_core.networks.configs import (
    AudioEncoderConfig,
    AudioProjectionConfig,
    AutoencoderConfig,
    DiTConfig,
)
from ...letstalk_core.networks.load import DEMO_FOLDER
from ...letstalk_core.sampling.schedules import default_steps
from .conditioning import make_conditioning
from .faces import detector_weights
from .folders import FOLDER, list_bundles, list_models, resolve_model
from .model import LetsTalkModel
from .work import work_root

PACKAGES = ("torch", "torchaudio", "transformers", "av", "kornia", "safetensors", "einops")
KINDS = {"dit": "DiT", "autoencoder": "Autoencoder", "audio_encoder": "Audio encoder"}
STEPS = 3  # of the measurement: the first one warms up, the best of the others counts
OLDEST_TORCH = (2, 7)  # that newer ComfyUI runs with
PATIENCE = 2.0  # seconds after which one measurement is enough


def report(model: Any, vae: Any, audio_encoder: Any, steps: int, audio_guidance: bool) -> str:
    """The whole report. What is wired in is measured, which loads it as ComfyUI would for a run."""
    sections = {
        "Versions": _versions,
        "Machine": _machine,
        "Model files": _files,
        "Video and faces": _tools,
        "Speed": lambda: _speed(model, vae, audio_encoder, steps, audio_guidance),
        "What to do next": lambda: _next(model, vae),
    }
    lines = []
    for title, section in sections.items():
        lines += [title, *(f"  {line}" for line in _tried(section)), ""]
    return "\n".join(lines).rstrip()


def _tried(section: Callable[[], list[str]]) -> list[str]:
    """A report must not fail: what goes wrong becomes a line. Cancelling still works."""
    try:
        return section()
    except mm.InterruptProcessingException:
        raise
    except Exception as error:  # whatever a broken installation throws
        reason = (str(error).splitlines() or [""])[0]
        return [f"could not be found out: {type(error).__name__}: {reason}"]


def _versions() -> list[str]:
    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "missing"

    return [
        f"LetsTalk {__version__}, ComfyUI {comfyui_version.__version__}, Python {platform.python_version()},"
        f" {platform.system()} {platform.machine()}",
        ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    ]


def _machine() -> list[str]:
    device, ram = mm.get_torch_device(), torch.device("cpu")
    lines = [f"device: {mm.get_torch_device_name(device)}"]
    for place in [ram] if device.type == ram.type else [device, ram]:
        name = "RAM" if place is ram else "GPU memory"
        free, total = (count / 2**30 for count in (mm.get_free_memory(place), mm.get_total_memory(place)))
        lines.append(f"{name}: {free:.1f} GB free of {total:.1f} GB")
    attention = comfy.ldm.modules.attention.optimized_attention.__name__.removeprefix("attention_")
    lines.append(f"attention: {attention}; memory mode: {mm.vram_state.name}")
    cache = "none" if args.cache_none else f"LRU of {args.cache_lru}" if args.cache_lru else "classic"
    previews = str(getattr(args.preview_method, "value", args.preview_method))
    hint = " (off; start ComfyUI with --preview-method latent2rgb to see them)" if previews == "none" else ""
    return [*lines, f"cache of node results: {cache}; latent previews: {previews}{hint}"]


def _files() -> list[str]:
    lines = []
    for kind, title in KINDS.items():
        lines.append(f"{title}:")
        for name in list_models(kind):
            mm.throw_exception_if_processing_interrupted()
            found = _tried(functools.partial(_file, kind, name))
            lines += [f"  {line}" for line in found]
    return lines


def _file(kind: str, name: str) -> list[str]:
    path = resolve_model(kind, name)
    status, header = path.stat(), read_header(path)
    dtypes = Counter(header.dtypes.values()).most_common()
    digest = known_sha256(path)
    lines = [
        f"{name}: {status.st_size / 1e6:.1f} MB, {'+'.join(dtype for dtype, _ in dtypes)}, sha256 {digest[:12]}",
        f"  {_contents(header)}",
    ]
    if path.parent == DEMO_FOLDER:
        lines.append("  for photographs and drawn faces, 256 x 256")
    return lines


def _contents(header: CheckpointHeader) -> str:
    """The parts of a file and what matters of their configs."""
    if not header.parts:
        return f"public file without a LetsTalk header, {len(header.shapes)} tensors"
    return "; ".join(f"{name}: {_shape(config)}" for name, config in header.parts.items())


def _shape(config: Config) -> str:
    if isinstance(config, DiTConfig):
        rows, columns = config.grid_size
        return (
            f"{config.depth} layers of {config.hidden_size}, {config.prediction}, clips of {config.clip_frames}"
            f" frames at {config.fps:g} fps, latents {config.in_channels} x {rows} x {columns}"
        )
    if isinstance(config, AutoencoderConfig):
        return f"f{config.spatial_factor}c{config.latent_channels}, scaling factor {config.scaling_factor:g}"
    if isinstance(config, AudioProjectionConfig):
        return f"{config.tokens} tokens of {config.token_dim} from {config.layers} layers of {config.encoder_dim}"
    if isinstance(config, AudioEncoderConfig):
        return f"{config.num_hidden_layers} layers of {config.hidden_size}"
    return config.kind


def _tools() -> list[str]:
    encoder, works = _encoder()
    note = " (no H.264 here: not every player shows this; install another PyAV)" if works is False else ""
    faces = detector_weights() or (
        f"no weights of YuNet, so the pack's own finds faces; YuNet's are at {WEIGHTS_URL}, for"
        f" models/{FOLDER}/face_detector or {cached_weights()}"
    )
    return [f"video encoder: {encoder}{note}", f"face detector: {faces}"]


def _next(model: Any, vae: Any) -> list[str]:
    """One line for each thing that the user could do, the most important first."""
    found = []
    if tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])) < OLDEST_TORCH:
        found.append(f"update torch to {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer: {torch.__version__} is old")
    if mm.get_torch_device().type == "cpu":
        found.append("install torch for your graphics card: on the CPU a model larger than the demo takes hours")
    if not _encoder()[1]:
        found.append("install another PyAV (pip install --upgrade av): without H.264 few players show videos")
    if len(list_bundles()) == 1:
        found.append(f"put a model folder into models/{FOLDER} for better photographs: the demo is small")
    left = [folder for folder in work_root().glob("auto-*") if folder.is_dir()]
    if left:
        found.append(
            f"queue a cancelled video again to finish it, or delete {work_root()}: it holds {len(left)} unfinished"
        )
    if model is None and vae is None:
        found.append("wire model, vae and audio_encoder to this node to learn how long a video will take")
    return found or ["nothing: everything is there"]


def _encoder() -> tuple[str, bool | None]:
    """The video encoder, and whether every player shows its videos; or why there is none, and None."""
    from ...letstalk_core.media.video.writer import available_encoder

    try:
        encoder = available_encoder()
    except DependencyError as error:
        return str(error), None
    return encoder, "264" in encoder


def _speed(model: Any, vae: Any, audio_encoder: Any, steps: int, audio_guidance: bool) -> list[str]:
    if model is None and vae is None and audio_encoder is None:
        return ["wire a model, a VAE or an audio encoder to measure them"]
    lines, config = [], getattr(getattr(model, "model", None), "dit_config", None)
    frames, fps = (config.clip_frames, config.fps) if config else (16, 25.0)
    step = decode = None
    if model is not None and not isinstance(model.model, LetsTalkModel):
        lines.append(f"model: a {type(model.model).__name__}, not a LetsTalk model; nothing to measure")
    elif model is not None:
        step, line = _measured(lambda: _step_seconds(model, audio_guidance))
        passes = "2 passes, audio guidance on" if audio_guidance else "1 pass, audio guidance off"
        lines.append(f"one step of a clip of {frames} frames ({passes}): {line}")
    if vae is not None:
        decode, line = _measured(lambda: _decode_seconds(vae, config, frames))
        lines.append(f"decoding a clip of {frames} frames: {line}")
    if audio_encoder is not None:
        _, line = _measured(lambda: _repeated(lambda: audio_encoder.encode_audio(_noise(2.0), 16_000)) / 2)
        lines.append(f"encoding one second of sound: {line}")
    if step is not None and config is not None:
        steps = steps or default_steps(config)
        clip = steps * step + (decode or 0.0)
        without = "" if decode is not None else ", without decoding"
        lines.append(f"expected for one second of video at {steps} steps{without}: {clip * fps / frames:.1f} s")
    return lines


def _measured(measure: Callable[[], float]) -> tuple[float | None, str]:
    try:
        seconds = measure()
    except (mm.InterruptProcessingException, KeyboardInterrupt):
        raise
    except Exception as error:  # a model that does not fit, an encoder of another kind
        return None, f"could not be measured ({first_line(error)})"
    return seconds, f"{seconds:.3f} s"


def _step_seconds(model: Any, audio_guidance: bool) -> float:
    """Seconds of one denoising step of one clip, sampled as any sampler node would."""
    config, projection = model.model.dit_config, model.model.projection_config
    rows, columns = (n * config.patch_size for n in config.grid_size)
    portrait = {"samples": torch.zeros(1, config.in_channels, 1, rows, columns)}
    track = AudioTrack(torch.zeros(config.clip_frames, projection.layers, projection.encoder_dim), config.fps)
    positive, negative, empty, _ = make_conditioning(portrait, {"letstalk_track": track}, 0, config.clip_frames)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0 if audio_guidance else 1.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
    times: list[float] = []

    def finished(step: int, denoised: Any, x: Any, total: int) -> None:
        denoised.flatten()[0].item()  # waits for the device
        times.append(time.perf_counter())

    latents = empty["samples"]
    noise, sampler = comfy.sample.prepare_noise(latents, 0), comfy.samplers.sampler_object("euler")
    guider.sample(noise, latents, sampler, sigmas, callback=finished, disable_pbar=True, seed=0)
    return min(after - before for before, after in zip(times, times[1:], strict=False))


def _decode_seconds(vae: Any, config: DiTConfig | None, frames: int) -> float:
    own = getattr(vae, "autoencoder_config", None)
    channels = own.latent_channels if own else vae.latent_channels
    rows, columns = config.grid_size if config else (8, 8)
    latents = torch.zeros(1, channels, frames, rows, columns)
    return _repeated(lambda: vae.decode(latents).flatten()[0].item())


def _noise(seconds: float) -> torch.Tensor:
    return 0.01 * torch.randn(1, 1, round(seconds * 16_000), generator=torch.Generator().manual_seed(0))


def _repeated(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes: the best of three, or the first one where that takes long."""
    best, begun = float("inf"), time.perf_counter()
    for _ in range(3):
        mm.throw_exception_if_processing_interrupted()
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
        if time.perf_counter() - begun > PATIENCE:
            break
    return best
