"""The audio encoder: wav2vec2 whose convolutional features are re-timed to video frames before its transformer.

Source: docs/model.md, Audio; paper (arXiv 2411.16748); wav2vec 2.0 (arXiv 2006.11477). The layers are those of
`transformers.Wav2Vec2Model`, held directly so that public checkpoints load with their own key names.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError, DependencyError, LetsTalkError, first_line
from ..protocols import Device, DType
from .checkpoint import check_keys, load_into, load_pickled_tensors, load_tensors, save_checkpoint
from .configs import AudioEncoderConfig
from .statistics import VARIANCE_FLOOR

WEIGHT_NORM_NAMES = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def normalise_waveform(waveform: Tensor, mean: float | None = None, std: float | None = None) -> Tensor:
    """Zero mean and unit variance over the last axis, or with the statistics of a longer recording.

    Shapes: (..., samples) -> same, float32. `std` already includes the variance floor (see `WaveformMoments.std`).
    """
    waveform = waveform.float()
    if mean is None or std is None:
        variance, average = torch.var_mean(waveform, dim=-1, keepdim=True, correction=0)
        return (waveform - average) / (variance + VARIANCE_FLOOR).sqrt()
    return (waveform - mean) / std


class AudioEncoder(nn.Module):
    """wav2vec2 with one output per video frame: 16 kHz sound in, the states of every transformer layer out.

    Shapes: waveform (b, samples), normalised -> (b, frames, layers, d), `frames` in place of wav2vec2's own 50 Hz
    steps. States are the outputs of layers 1..L; of models with a final layer norm, the last one is normalised.
    Nothing is random in training (no dropout, layer drop or masking); gradients flow to the first convolution.
    """

    def __init__(self, config: AudioEncoderConfig, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.config = config
        model = _build(config, device, dtype)
        # The parts, not the model: state dict keys are then exactly those of Wav2Vec2Model.
        self.feature_extractor: nn.Module = model.feature_extractor
        self.feature_projection: nn.Module = model.feature_projection
        self.encoder: nn.Module = model.encoder

    def init_weights(self) -> None:
        """Draw new weights, as transformers does."""
        self.load_state_dict(_build(self.config, None, None).state_dict())

    @property
    def hop(self) -> int:
        """Samples between two convolutional features: 320, which is 50 Hz."""
        hop = 1
        for stride in self.config.conv_stride:
            hop *= stride
        return hop

    @property
    def receptive_field(self) -> int:
        """Samples that one convolutional feature sees: 400."""
        field = 1
        for kernel, stride in zip(
            reversed(self.config.conv_kernel), reversed(self.config.conv_stride), strict=True
        ):
            field = (field - 1) * stride + kernel
        return field

    def conv_length(self, samples: int) -> int:
        """Convolutional features of a recording; at least 1, because shorter ones are padded with silence."""
        return max(1, (samples - self.receptive_field) // self.hop + 1)

    def conv_features(self, waveform: Tensor, group_stats: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Convolutional features at 50 Hz: (b, samples) -> (b, steps, conv_dim).

        `group_stats` are mean and variance (channels,) of the first convolution over the whole recording. With
        them the features of a piece equal those of the whole: wav2vec2-base normalises each channel over all time.
        """
        if waveform.ndim != 2:
            raise ConfigError(
                f"waveform has shape {list(waveform.shape)}; the audio encoder needs (batch, samples)"
            )
        x = F.pad(waveform, (0, max(0, self.receptive_field - waveform.shape[-1])))
        x = rearrange(x, "b s -> b 1 s").to(next(self.parameters()).dtype)
        layers: Any = self.feature_extractor.conv_layers
        for index, layer in enumerate(layers):
            if index == 0 and group_stats is not None and self.config.feat_extract_norm == "group":
                x = layer.activation(_normalise_channels(layer.conv(x), layer.layer_norm, *group_stats))
            else:
                x = layer(x)
        return rearrange(x, "b c s -> b s c")

    def contextualise(self, features: Tensor) -> Tensor:
        """Projection and transformer: (b, frames, conv_dim) -> (b, frames, layers, d)."""
        x, _ = self.feature_projection(features)
        encoder: Any = self.encoder
        x = x + encoder.pos_conv_embed(x)
        if not self.config.do_stable_layer_norm:
            x = encoder.layer_norm(x)
        states = []
        for layer in encoder.layers:
            x = layer(x, attention_mask=None)
            x = x[0] if isinstance(x, tuple) else x  # transformers 4 returns a tuple, 5 a tensor
            states.append(x)
        if self.config.do_stable_layer_norm:
            states[-1] = encoder.layer_norm(states[-1])
        return torch.stack(states, dim=2)

    def forward(self, waveform: Tensor, frames: int) -> Tensor:
        """One pass over whole recordings (see the class). Raises: ConfigError."""
        if frames < 1:
            raise ConfigError(f"frames={frames} must be at least 1")
        features = rearrange(self.conv_features(waveform), "b s c -> b c s")
        features = F.interpolate(features, size=frames, mode="linear", align_corners=True)
        return self.contextualise(rearrange(features, "b c f -> b f c"))

    @torch.no_grad()
    def features(self, waveform: Tensor, frames: int) -> Tensor:
        """States of one recording, not normalised before: (samples,) at 16 kHz -> (frames, layers, d)."""
        waveform = waveform.float().to(next(self.parameters()).device)  # in this order: MPS has no float64
        states: Tensor = self(normalise_waveform(waveform)[None], frames)
        return states[0]


def _normalise_channels(x: Tensor, norm: Any, mean: Tensor, variance: Tensor) -> Tensor:
    """Group norm with one channel per group and given statistics. x (b, c, s), mean and variance (c,)."""
    scale = norm.weight.float() * torch.rsqrt(variance.to(x.device).float() + norm.eps)
    shift = norm.bias.float() - mean.to(x.device).float() * scale
    y: Tensor = x.float() * scale[:, None] + shift[:, None]
    return y.to(x.dtype)


def _build(config: AudioEncoderConfig, device: Device, dtype: DType) -> Any:
    """A Wav2Vec2Model with random weights and without anything random in its forward pass."""
    try:
        import transformers
    except ImportError as error:
        raise DependencyError(
            f"the audio encoder needs transformers ({error}); pip install transformers"
        ) from None
    library: Any = transformers  # its signatures are inexact
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in config.to_dict().items()}
    values["layer_norm_eps"] = float(config.layer_norm_eps)  # the library takes no whole numbers for it
    dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
    try:
        wav2vec2_config = library.Wav2Vec2Config(
            **values,
            **dict.fromkeys((*dropouts, "layerdrop", "mask_time_prob", "mask_feature_prob"), 0.0),
            apply_spec_augment=False,
            attn_implementation="sdpa",
        )
        with torch.device(device if device is not None else "cpu"):
            model = library.Wav2Vec2Model(wav2vec2_config)
    except Exception as error:  # of many kinds, by version of the library
        raise ConfigError(f"audio_encoder config: its layers cannot be made ({first_line(error)})") from None
    return model if dtype is None else model.to(dtype)


def wav2vec2_keys(tensors: Mapping[str, Tensor], *, old_weight_norm: bool = False) -> dict[str, Tensor]:
    """Rename the tensors of a public wav2vec2 file to those of `AudioEncoder`, without heads and mask embedding.

    With `old_weight_norm` the positional convolution gets its names of before torch 2.1 (weight_g, weight_v).
    """
    if any(key.startswith("wav2vec2.") for key in tensors):
        tensors = {k[len("wav2vec2.") :]: v for k, v in tensors.items() if k.startswith("wav2vec2.")}
    renamed = {}
    for key, value in tensors.items():
        if not key.startswith(("feature_extractor.", "feature_projection.", "encoder.")):
            continue  # lm_head, masked_spec_embed, quantizer, project_q, …: not part of the encoder
        for old, new in WEIGHT_NORM_NAMES.items():
            wrong, right = (new, old) if old_weight_norm else (old, new)
            if key.endswith(f"pos_conv_embed.conv.{wrong}"):
                key = key[: -len(wrong)] + right
        renamed[key] = value
    return renamed


def load_wav2vec2_folder(path: str | os.PathLike[str]) -> AudioEncoder:
    """Load a Hugging Face folder: config.json with model.safetensors or, without pickle code, pytorch_model.bin.

    Raises: CheckpointError if a file is missing or damaged or is not of a plain wav2vec2 model.
    """
    folder = Path(path)
    config = read_wav2vec2_config(folder / "config.json")
    weights, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if weights.is_file():
        tensors: Mapping[str, Any] = load_tensors(weights)
    elif pickled.is_file():
        weights, tensors = pickled, load_pickled_tensors(pickled)
        if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()):
            raise CheckpointError(
                f"{pickled}: holds no dictionary of tensors; give the folder of a wav2vec2 model"
            )
    else:
        raise CheckpointError(
            f"{folder}: has no model.safetensors or pytorch_model.bin; download the whole folder"
        )
    return filled_encoder(config, {k: v.float() for k, v in wav2vec2_keys(tensors).items()}, weights).eval()


def filled_encoder(config: AudioEncoderConfig, tensors: Mapping[str, Tensor], path: Path) -> AudioEncoder:
    """A float32 encoder with these weights. Raises: CheckpointError before a config that lies can take memory."""
    try:
        check_keys(path, tensors, AudioEncoder(config, device="meta").state_dict())
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    encoder = AudioEncoder(config, dtype=torch.float32)
    load_into(encoder, tensors, path)
    return encoder


def read_wav2vec2_config(path: Path) -> AudioEncoderConfig:
    """The shape of a plain wav2vec2 model from its Hugging Face config.json. Raises: CheckpointError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; give the folder of a Hugging Face wav2vec2 model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); get the file again") from None
    if values.get("model_type") != "wav2vec2":
        raise CheckpointError(f"{path}: model_type is {values.get('model_type')!r}, LetsTalk needs 'wav2vec2'")
    for name, needed in (("hidden_act", "gelu"), ("feat_extract_activation", "gelu"), ("add_adapter", False)):
        if values.get(name, needed) != needed:
            raise CheckpointError(f"{path}: {name}={values[name]!r} is not supported, only {needed!r}")
    known = {f.name for f in dataclasses.fields(AudioEncoderConfig)}
    try:
        return AudioEncoderConfig.from_dict({k: v for k, v in values.items() if k in known})
    except LetsTalkError as error:
        raise CheckpointError(f"{path}: {error}") from None


def save_audio_encoder(
    path: str | os.PathLike[str], encoder: AudioEncoder, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the encoder as a LetsTalk safetensors file with the single part "audio_encoder"."""
    save_checkpoint(path, {"audio_encoder": (encoder.config, encoder.state_dict())}, metadata)
