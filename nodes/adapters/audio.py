"""AUDIO into states per video frame: by LetsTalk's own encoder, by ComfyUI's, or from an AUDIO_ENCODER_OUTPUT."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn.utils import parametrize

from ...letstalk_core.errors import ConfigError, MediaError, first_line
from ...letstalk_core.media.audio.alignment import SAMPLE_RATE, frame_count, frame_positions, resample_states
from ...letstalk_core.media.audio.decode import MIN_SAMPLES, WaveformSource
from ...letstalk_core.media.audio.features import encode_audio as encode_blocks
from ...letstalk_core.media.audio.features import plan_windows
from ...letstalk_core.media.audio.loudness import normalize_loudness
from ...letstalk_core.media.audio.padding import PaddedSource
from ...letstalk_core.media.audio.silence import gate_silence
from ...letstalk_core.media.audio.track import AudioTrack
from ...letstalk_core.media.av_input import RATES
from ...letstalk_core.networks.audio_encoder import AudioEncoder
from ...letstalk_core.networks.checkpoint import read_header
from ...letstalk_core.networks.configs import AudioEncoderConfig
from ...letstalk_core.networks.load import load_model
from ...letstalk_core.networks.wav2vec2_files import load_wav2vec2_file
from .folders import temp_folder
from .progress import interruptible

NO_GATE = -100.0  # dBFS; below what 16-bit sound can hold
WINDOW_SECONDS, CONTEXT_SECONDS = 30.0, 2.0  # of native encoders, whose attention would else see everything
HOP = 320  # samples at 16 kHz between two steps of any wav2vec2
FIELD = MIN_SAMPLES  # samples that one step sees
FPS = 25.0
AUTHORS_CLIP = 16  # frames

log = logging.getLogger(__name__)


class LetsTalkAudioEncoder:
    """An AUDIO_ENCODER: wav2vec2 with one state per video frame, in float32, for sound of any length.

    `path` is the file it came from.
    """

    def __init__(self, encoder: AudioEncoder, kind: str, path: Path | None = None) -> None:
        self.model = interruptible(encoder)
        self.kind, self.path = kind, path
        self.patcher = comfy.model_patcher.ModelPatcher(
            encoder, load_device=mm.text_encoder_device(), offload_device=mm.text_encoder_offload_device()
        )

    def encode_audio(self, waveform: Tensor, sample_rate: int, fps: float = FPS) -> dict[str, Any]:
        """AUDIO_ENCODER_OUTPUT of a waveform (1, channels, samples), as the native node calls it."""
        heard = _check_audio({"waveform": waveform, "sample_rate": sample_rate})
        track = self.track(WaveformSource(heard, sample_rate), fps, waveform=heard, sample_rate=sample_rate)
        return _to_output(track, heard.shape[-1], sample_rate)

    def track(self, source: WaveformSource | PaddedSource, fps: float, **sound: Any) -> AudioTrack:
        """States of `source`; `sound` is what else the track keeps: of what the video will play."""
        # Its layers are plain torch.nn ones, which cannot run from the CPU in part.
        mm.load_models_gpu([self.patcher], force_full_load=True)
        frames = source.frames(fps)
        if isinstance(source, PaddedSource):
            sound["shown"] = source.shown
        blocks = _with_progress(encode_blocks(self.model, source, fps), frames)
        known = {"kind": self.kind, "encoder_file": self.path}
        return AudioTrack.build(blocks, frames, fps, **known, spool=temp_folder(), **sound)


def load_audio_encoder(path: Path) -> LetsTalkAudioEncoder:
    """Our file, or a public single-file wav2vec2. Raises: CheckpointError."""
    own = read_header(path).parts
    encoder: AudioEncoder = load_model(path, AudioEncoderConfig.kind) if own else load_wav2vec2_file(path)
    _fold_weight_norm(encoder.encoder.get_submodule("pos_conv_embed.conv"))
    config = encoder.config
    kind = f"{path.stem}, {config.num_hidden_layers} layers of {config.hidden_size}"
    return LetsTalkAudioEncoder(encoder, kind, path)


def _fold_weight_norm(convolution: Any) -> None:
    """Keep a convolution's weight itself: ModelPatcher moves modules without parts, and a norm is a part."""
    weight = convolution.weight.detach().clone()
    parametrize.remove_parametrizations(convolution, "weight")
    convolution.weight = torch.nn.Parameter(weight, requires_grad=False)


def encode_audio(
    audio: Mapping[str, Any],
    encoder: Any,
    *,
    fps: float,
    silence_threshold: float,
    start_seconds: float,
    length_seconds: float,
    normalize: bool = False,
    as_authors: bool = False,
) -> tuple[dict[str, Any], int]:
    """AUDIO_ENCODER_OUTPUT with its track, and the number of frames.

    The encoder, ours or a native wav2vec2, hears the sound without noise in its pauses, if wanted at the loudness
    of broadcasts; the track keeps it as it was. `as_authors`: as recorded, every started frame counts, and zeros
    fill the last clip (docs/model.md, Interchange). Raises: LetsTalkError naming the input.
    """
    if as_authors and not isinstance(encoder, LetsTalkAudioEncoder):
        raise ConfigError("as_authors: needs an audio_encoder of LetsTalk Load Audio Encoder; connect one")
    whole, sample_rate = _check_audio(audio), audio["sample_rate"]
    heard = _cut(whole, sample_rate, start_seconds, length_seconds)
    threshold = -math.inf if silence_threshold <= NO_GATE else silence_threshold
    cut = {"waveform": heard, "sample_rate": sample_rate, "start_seconds": start_seconds}
    if as_authors:
        padded = PaddedSource(WaveformSource(heard, sample_rate), fps, AUTHORS_CLIP)
        track = encoder.track(padded, fps, **cut)
        return _to_output(track, heard.shape[-1], sample_rate), track.frames
    sound = WaveformSource(heard, sample_rate).waveform  # mono, 16 kHz: a gate at full rate would need gigabytes
    sound = normalize_loudness(sound[None], SAMPLE_RATE)[0] if normalize else sound
    source = WaveformSource(gate_silence(sound[None], SAMPLE_RATE, threshold))
    make_track = encoder.track if isinstance(encoder, LetsTalkAudioEncoder) else partial(_native_track, encoder)
    track = make_track(source, fps, **cut)
    return _to_output(track, heard.shape[-1], sample_rate), track.frames


def reuse_output(
    output: Mapping[str, Any], audio: Mapping[str, Any], *, fps: float, start_seconds: float, length_seconds: float
) -> tuple[dict[str, Any], int]:
    """The same from what AudioEncoderEncode made of the whole `audio`, by our encoder or a native wav2vec2.

    Raises: ConfigError if it was made by something else, or of another sound.
    """
    whole, sample_rate = _check_audio(audio), audio["sample_rate"]
    seconds = whole.shape[-1] / sample_rate
    encoded = output.get("audio_samples", 0) / SAMPLE_RATE
    if abs(encoded - seconds) > 0.1:
        raise ConfigError(
            f"encoder_output: was made of {encoded:.2f} s of sound, audio lasts {seconds:.2f} s; connect the same"
            " audio to both nodes"
        )
    track = output.get("letstalk_track")
    if track is None:
        states = _native_states(output, round(seconds * SAMPLE_RATE))
        known = {"kind": f"native encoder, {states.shape[1]} layers of {states.shape[2]}"}
    else:
        states, known = track.states, {"kind": track.kind, "encoder_file": track.encoder_file}
    frames = frame_count(seconds, fps)
    if track is None or track.frames != frames:
        states = resample_states(states, frames)
    heard = _cut(whole, sample_rate, start_seconds, length_seconds)
    first = min(frames - 1, round(start_seconds * fps))
    states = states[first : first + frame_count(heard.shape[-1] / sample_rate, fps)]
    sound = {"waveform": heard, "sample_rate": sample_rate, "start_seconds": start_seconds}
    track = AudioTrack.build([states], len(states), fps, **known, spool=temp_folder(), **sound)
    return _to_output(track, heard.shape[-1], sample_rate), track.frames


def sound_of(output: dict[str, Any]) -> dict[str, Any]:
    """AUDIO under the frames of what `encode_audio` gave: neither gated nor longer than they are."""
    track: AudioTrack = output["letstalk_track"]
    assert track.waveform is not None  # both ways into an output give one
    samples = round(track.frames * track.sample_rate / track.fps)
    return {"waveform": track.waveform[None, :, :samples], "sample_rate": track.sample_rate}


def _check_audio(audio: Mapping[str, Any]) -> Tensor:
    """The waveform of an AUDIO: (1 or 2, samples) float32 on the CPU."""
    try:  # other packs give a Mapping that decodes when it is asked, and fails then
        waveform = audio["waveform"] if isinstance(audio, Mapping) else None
    except mm.InterruptProcessingException:
        raise
    except Exception as error:
        why = first_line(error)
        raise MediaError(f"audio: its sound cannot be read ({why}); use a file with a sound track") from None
    if not isinstance(waveform, Tensor):
        raise MediaError("audio: there is no sound; a video without a sound track gives none")
    if waveform.ndim != 3 or waveform.shape[0] != 1 or waveform.shape[1] < 1:
        raise MediaError(
            f"audio: has shape {list(waveform.shape)}; needs one recording (1, channels, samples), not a batch"
        )
    rate = audio.get("sample_rate")
    if not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        raise MediaError(f"audio: has {rate!r} samples a second; needs {RATES[0]:,} to {RATES[1]:,}")
    sound = waveform[0].float().cpu()
    if sound.shape[-1] * SAMPLE_RATE < MIN_SAMPLES * audio["sample_rate"]:
        raise MediaError(f"audio: {sound.shape[-1]} samples are too short; give at least 0.03 s")
    if not torch.isfinite(sound).all():
        raise MediaError("audio: has NaN or infinite samples; load the sound again")
    return sound if len(sound) <= 2 else reduce(sound, "c s -> 1 s", "mean")


def _cut(sound: Tensor, sample_rate: int, start: float, length: float) -> Tensor:
    """Seconds start..start+length of (channels, samples); a length of 0 is all that is left."""
    seconds = sound.shape[-1] / sample_rate
    if start >= seconds - 0.03:
        raise MediaError(f"start_seconds: {start:g} s is not before the end of audio, which lasts {seconds:.2f} s")
    first = round(start * sample_rate)
    last = round((start + length) * sample_rate) if length > 0 else sound.shape[-1]
    if last - first < MIN_SAMPLES * sample_rate / SAMPLE_RATE:
        raise MediaError(f"length_seconds: {length:g} s is too short; give at least 0.03 s, or 0 for everything")
    return sound[:, first:last]


def _to_output(track: AudioTrack, samples: int, sample_rate: int) -> dict[str, Any]:
    """AUDIO_ENCODER_OUTPUT: the native keys, as views of the track's states, and the track itself."""
    layers = tuple(rearrange(track.states[:, i], "n d -> 1 n d") for i in range(track.layers))
    return {
        "encoded_audio": layers[-1],
        "encoded_audio_all_layers": layers,
        "audio_samples": round(samples * SAMPLE_RATE / sample_rate),
        "letstalk_track": track,
    }


def _native_track(encoder: Any, source: WaveformSource, fps: float, **sound: Any) -> AudioTrack:
    """States by ComfyUI's own wav2vec2, window by window, at the times that frames have in training.

    Its steps lie on the grid of one pass over everything, whose ends are those of the frames.
    """
    waveform, frames = source.waveform, frame_count(source.seconds, fps)
    hearing = [encoder]  # and its copy in float32, once it was needed
    steps = max(1, (waveform.numel() - FIELD) // HOP + 1)

    def blocks() -> Iterator[Tensor]:
        for window in plan_windows(frames, fps, WINDOW_SECONDS, CONTEXT_SECONDS):
            positions = frame_positions(window.begin, window.end - window.begin, frames, steps)
            first, last = int(positions[0]), min(steps - 1, int(positions[-1]) + 1)
            piece = waveform[first * HOP : last * HOP + FIELD]
            states = _native_piece(hearing[-1], piece)
            if not states.isfinite().all() and len(hearing) == 1 and hasattr(encoder, "patcher"):
                log.warning("LetsTalk: the audio encoder gave NaN or infinity; the rest is encoded in float32")
                hearing.append(_float32_encoder(encoder))
                states = _native_piece(hearing[-1], piece)
            inside = positions[window.first - window.begin :][: window.count] - first
            below = inside.floor().long().clamp(max=len(states) - 1)
            weight = rearrange((inside - inside.floor()).float(), "n -> n 1 1")
            yield torch.lerp(states[below], states[(below + 1).clamp(max=len(states) - 1)], weight)

    kind = f"native {type(getattr(encoder, 'model', encoder)).__name__}"
    stream = _with_progress(blocks(), frames)
    return AudioTrack.build(stream, frames, fps, kind=kind, spool=temp_folder(), **sound)


def _native_piece(encoder: Any, piece: Tensor) -> Tensor:
    return _native_states(encoder.encode_audio(rearrange(piece, "s -> 1 1 s"), SAMPLE_RATE), piece.numel())


def _float32_encoder(encoder: Any) -> Any:
    """A copy of a native encoder with float32 weights of its own; the given one is shared and stays as it is."""
    result, patcher = copy.copy(encoder), encoder.patcher
    result.model = copy.deepcopy(encoder.model).to(patcher.offload_device).float()
    result.dtype = torch.float32
    result.patcher = comfy.model_patcher.ModelPatcher(
        result.model, load_device=patcher.load_device, offload_device=patcher.offload_device
    )
    return result


def _native_states(output: Mapping[str, Any], samples: int) -> Tensor:
    """Outputs of all transformer layers at 50 Hz: (steps, layers, dim) float32. Raises: ConfigError.

    A native encoder puts what goes into its first layer before them.
    """
    layers: Sequence[Tensor] = output.get("encoded_audio_all_layers") or ()
    steps = (samples - FIELD) // HOP + 1
    if len(layers) < 2 or layers[-1].ndim != 3 or layers[-1].shape[0] != 1 or layers[-1].shape[1] != steps:
        found = f"{len(layers)} layers of {list(layers[-1].shape)}" if len(layers) else "no layers"
        raise ConfigError(
            f"audio_encoder: gave {found} for {samples} samples, a wav2vec2 gives [1, {steps}, dim]; load a"
            " wav2vec2 (whisper and others keep another time), or use LetsTalk's Load Audio Encoder"
        )
    return torch.stack([layer[0].float().cpu() for layer in layers[1:]], dim=1)


def _with_progress(blocks: Iterator[Tensor], frames: int) -> Iterator[Tensor]:
    """Blocks of states with ComfyUI's progress bar, stopped when the user cancels."""
    bar, done = comfy.utils.ProgressBar(frames), 0
    for block in blocks:
        mm.throw_exception_if_processing_interrupted()
        done += len(block)
        bar.update_absolute(done, frames)
        yield block
