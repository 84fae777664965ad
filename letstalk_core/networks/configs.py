"""Shapes of the networks: frozen, JSON-safe, checked when made. A config alone is enough to rebuild a network."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ..errors import ConfigError
from .motion_channels import units

__all__ = [
    "AudioEncoderConfig",
    "AudioProjectionConfig",
    "AutoencoderConfig",
    "CarryConfig",
    "Config",
    "DiTConfig",
    "FacesConfig",
    "config_class",
]

C = TypeVar("C", bound="Config")
FUSIONS = ("direct", "siamese", "symbiotic")
PREDICTIONS = ("epsilon", "v", "flow")
BLOCKS = ("ResBlock", "EfficientViTBlock")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


# What no network of this kind comes near: beyond it a file is damaged, and building it would take hours or memory.
LARGEST = {"layers": 512, "stages": 12, "width": 65_536, "frames": 4096, "side": 1024, "fps": 1000}


def _require_at_most(config: Config, kind: str, *names: str) -> None:
    """Numbers, tuples of them, and tuples of tuples."""

    def numbers(value: Any) -> list[Any]:
        return [n for v in value for n in numbers(v)] if isinstance(value, tuple) else [value]

    for name in names:
        value = getattr(config, name)
        _require(
            all(n <= LARGEST[kind] for n in numbers(value)),
            f"{config.kind} config: {name}={value} must be <= {LARGEST[kind]}",
        )


def _require_positive(config: Config, *names: str) -> None:
    """Numbers, and tuples of them that may not be empty."""
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        _require(
            len(numbers) > 0 and all(0 < n < math.inf for n in numbers),
            f"{config.kind} config: {name}={value} must be > 0",
        )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a JSON value has the annotated type (int for float is fine, bool for int is not)."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, a) for a in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(_fits(v, args[0]) for v in value)
        return len(value) == len(args) and all(_fits(v, a) for v, a in zip(value, args, strict=True))
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_small(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and _is_small(value)
    if annotation is type(None):
        return value is None
    return isinstance(value, annotation)


def _is_small(value: float) -> bool:
    """Whether a number fits what tensors and clocks count with; JSON and TOML know larger whole ones."""
    return isinstance(value, float) or abs(value) < 2**63


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs. `kind` names the network in checkpoint headers."""

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _fits(value, hints[field.name]):
                raise ConfigError(f"{self.kind} config: {field.name}={value!r} is not of type {field.type}")
        self.validate()

    def validate(self) -> None:
        """Check relations between fields; overridden by each config. Raises: ConfigError."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any]) -> C:
        """Build from JSON (lists become tuples). Raises: ConfigError naming unknown, missing or bad fields."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"{cls.kind} config: unknown fields {unknown}; known are {sorted(known)}")
        try:
            return cls(**{k: _tuples(v) for k, v in values.items()})
        except (TypeError, RecursionError) as error:
            raise ConfigError(f"{cls.kind} config: {error}") from None


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(Config):
    """Shape of a DC-AE (docs/model.md, Autoencoder). Field names follow the public diffusers config.json files.

    Stage i works at 1/2**i of the image size. A first stage with 0 layers makes the stem itself a down block (and
    the last layer an up block), so the first width is then unused; a later stage of 0 layers only changes size.
    `encoder_qkv_multiscales[i]` lists the kernel sizes of the aggregated qkv copies in the attention blocks of
    stage i.
    """

    kind: ClassVar[str] = "autoencoder"

    latent_channels: int
    encoder_block_types: tuple[str, ...]
    decoder_block_types: tuple[str, ...]
    encoder_block_out_channels: tuple[int, ...]
    decoder_block_out_channels: tuple[int, ...]
    encoder_layers_per_block: tuple[int, ...]
    decoder_layers_per_block: tuple[int, ...]
    encoder_qkv_multiscales: tuple[tuple[int, ...], ...]
    decoder_qkv_multiscales: tuple[tuple[int, ...], ...]
    downsample_block_type: str = "pixel_unshuffle"  # or "conv"
    upsample_block_type: str = "pixel_shuffle"  # or "interpolate"
    decoder_norm_types: tuple[str, ...]  # per stage: "rms_norm" or "batch_norm"
    decoder_act_fns: tuple[str, ...]  # per stage: "silu" or "relu"
    decoder_conv_act_fn: str = "relu"  # before the last layer
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True
    attention_head_dim: int = 32
    in_channels: int = 3
    scaling_factor: float = 1.0  # latents * scaling_factor is what the denoiser sees
    image_size: int = 512  # trained image size, pixels
    latent_rgb_factors: tuple[tuple[float, float, float], ...] = ()  # fitted per channel, for previews
    latent_rgb_bias: tuple[float, ...] = ()

    def validate(self) -> None:
        _require_positive(
            self, "latent_channels", "attention_head_dim", "in_channels", "scaling_factor", "image_size"
        )
        stages = len(self.encoder_block_out_channels)
        _require(
            stages <= LARGEST["stages"],
            f"autoencoder config: {stages} stages, at most {LARGEST['stages']} are known",
        )
        _require_at_most(self, "width", "latent_channels", "attention_head_dim", "in_channels", "image_size")
        _require_at_most(self, "width", "encoder_block_out_channels", "decoder_block_out_channels")
        _require_at_most(self, "side", "encoder_qkv_multiscales", "decoder_qkv_multiscales")
        for name in (
            "encoder_block_types",
            "encoder_layers_per_block",
            "encoder_qkv_multiscales",
            "decoder_block_types",
            "decoder_block_out_channels",
            "decoder_layers_per_block",
            "decoder_qkv_multiscales",
            "decoder_norm_types",
            "decoder_act_fns",
        ):
            found = len(getattr(self, name))
            _require(found == stages, f"autoencoder config: {name} has {found} entries for {stages} stages")
        for name in ("encoder_block_types", "decoder_block_types"):
            bad = sorted(set(getattr(self, name)) - set(BLOCKS))
            _require(not bad, f"autoencoder config: {name} has {bad}; known are {list(BLOCKS)}")
        for side in ("encoder", "decoder"):
            layers = getattr(self, f"{side}_layers_per_block")
            _require(
                stages >= 2 and min(layers) >= 0 and sum(layers) <= LARGEST["layers"],
                f"autoencoder config: {side}_layers_per_block={layers} needs >= 2 stages of >= 0 layers, and at"
                f" most {LARGEST['layers']} in all",
            )
            kernels = getattr(self, f"{side}_qkv_multiscales")
            _require(
                all(k > 0 and k % 2 for stage in kernels for k in stage),
                f"autoencoder config: {side}_qkv_multiscales={kernels} must be odd kernel sizes",
            )
            widths = getattr(self, f"{side}_block_out_channels")
            _require(min(widths) > 0, f"autoencoder config: {side}_block_out_channels={widths} must be positive")
            for width, block in zip(widths, getattr(self, f"{side}_block_types"), strict=True):
                _require(
                    block == "ResBlock" or width % self.attention_head_dim == 0,
                    f"autoencoder config: attention width {width} is not a multiple of"
                    f" attention_head_dim={self.attention_head_dim}",
                )
            last = widths[-1]
            shortcut = self.encoder_out_shortcut if side == "encoder" else self.decoder_in_shortcut
            _require(
                not shortcut or last % self.latent_channels == 0,
                f"autoencoder config: last {side} width {last} is not a multiple of"
                f" latent_channels={self.latent_channels}, which the shortcut needs",
            )
        _require(
            self.downsample_block_type in ("conv", "pixel_unshuffle"),
            f"autoencoder config: downsample_block_type={self.downsample_block_type!r}"
            " must be conv or pixel_unshuffle",
        )
        _require(
            self.upsample_block_type in ("interpolate", "pixel_shuffle"),
            f"autoencoder config: upsample_block_type={self.upsample_block_type!r}"
            " must be interpolate or pixel_shuffle",
        )
        bad = sorted(set(self.decoder_norm_types) - {"rms_norm", "batch_norm"})
        _require(not bad, f"autoencoder config: decoder_norm_types has {bad}; known are rms_norm and batch_norm")
        bad = sorted({*self.decoder_act_fns, self.decoder_conv_act_fn} - {"silu", "relu"})
        _require(not bad, f"autoencoder config: activations {bad} are unknown; known are silu and relu")
        _require(
            len(self.latent_rgb_factors) in (0, self.latent_channels) and len(self.latent_rgb_bias) in (0, 3),
            f"autoencoder config: latent_rgb_factors needs {self.latent_channels} rows and latent_rgb_bias"
            " 3 numbers",
        )

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position along each side."""
        return int(2 ** (len(self.encoder_block_out_channels) - 1))


@dataclass(frozen=True, kw_only=True)
class AudioEncoderConfig(Config):
    """Shape of a wav2vec2 encoder; field names are those of `transformers.Wav2Vec2Config`."""

    kind: ClassVar[str] = "audio_encoder"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    conv_dim: tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_norm: str = "group"  # "group" (base) or "layer" (large)
    do_stable_layer_norm: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    layer_norm_eps: float = 1e-5

    def validate(self) -> None:
        _require_positive(self, "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        _require_positive(self, "conv_dim", "conv_kernel", "conv_stride", "layer_norm_eps")
        _require_positive(self, "num_conv_pos_embeddings", "num_conv_pos_embedding_groups")
        _require_at_most(self, "layers", "num_hidden_layers")
        _require_at_most(self, "width", "hidden_size", "intermediate_size", "conv_dim", "num_conv_pos_embeddings")
        _require_at_most(self, "side", "conv_kernel", "conv_stride")
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            _require(
                self.hidden_size % getattr(self, name) == 0,
                f"audio_encoder config: hidden_size={self.hidden_size} is not a multiple of"
                f" {name}={getattr(self, name)}",
            )
        lengths = {len(self.conv_dim), len(self.conv_kernel), len(self.conv_stride)}
        _require(
            len(self.conv_dim) <= LARGEST["stages"],
            f"audio_encoder config: {len(self.conv_dim)} convolutions, at most {LARGEST['stages']} are known",
        )
        _require(len(lengths) == 1, "audio_encoder config: conv_dim, conv_kernel and conv_stride differ in length")
        _require(
            self.feat_extract_norm in ("group", "layer"),
            f"audio_encoder config: feat_extract_norm={self.feat_extract_norm!r} must be group or layer",
        )


@dataclass(frozen=True, kw_only=True)
class AudioProjectionConfig(Config):
    """Shape of the projection from a window of encoder states to a frame's audio tokens (docs/model.md, Audio)."""

    kind: ClassVar[str] = "audio_projection"

    window: int = 5  # frames around each frame, odd
    layers: int = 12  # encoder layers read
    encoder_dim: int = 768
    hidden_size: int = 512
    tokens: int = 32  # tokens per frame
    token_dim: int = 768
    movement: tuple[str, ...] = ()  # of `motion_channels.MOVEMENTS`, what it is told; none: it makes them up
    movement_tokens: int = 2  # tokens per frame that tell it

    def validate(self) -> None:
        units(self.movement)
        _require(
            self.window % 2 == 1 and self.window > 0, f"audio_projection config: window={self.window} must be odd"
        )
        _require_positive(self, "layers", "encoder_dim", "hidden_size", "tokens", "token_dim", "movement_tokens")
        _require_at_most(self, "width", "encoder_dim", "hidden_size", "tokens", "token_dim", "movement_tokens")
        _require_at_most(self, "layers", "layers", "window")


@dataclass(frozen=True, kw_only=True)
class CarryConfig(Config):
    """Shape of the masks that carry a portrait's detail to decoded frames (docs/model.md, Carry)."""

    kind: ClassVar[str] = "carry"

    hidden_size: int = 24
    working_size: int = 128  # pixels of the shorter side at which flow and masks are found
    correction_layers: int = 3  # 3x3 convolutions that correct the flow
    mask_layers: int = 2

    def validate(self) -> None:
        _require_positive(self, "hidden_size", "working_size")
        _require_at_most(self, "width", "hidden_size")
        _require_at_most(self, "side", "working_size")
        _require(
            0 <= self.correction_layers <= 6 and 0 <= self.mask_layers <= 6,
            f"carry config: correction_layers={self.correction_layers} and mask_layers={self.mask_layers} must be"
            " 0 to 6: each sees twice as far as the one before",
        )
        _require(
            self.working_size >= 32 and self.working_size % 8 == 0,
            f"carry config: working_size={self.working_size} must be a multiple of 8 from 32 on",
        )


@dataclass(frozen=True, kw_only=True)
class DiTConfig(Config):
    """Shape of the video diffusion transformer (docs/model.md, Denoiser) and of the clips it was trained on."""

    kind: ClassVar[str] = "dit"

    hidden_size: int
    depth: int
    num_heads: int  # temporal and audio attention
    in_channels: int = 32
    learned_variance: bool = False
    patch_size: int = 1
    linear_head_dim: int = 32  # spatial linear attention
    mlp_ratio: float = 4.0
    audio_token_dim: int = 768
    portrait_fusion: str = "symbiotic"
    audio_fusion: str = "direct"
    spatial_attention: str = "linear"  # or "softmax", for comparison
    grid_size: tuple[int, int] = (16, 16)  # trained latent grid, rows and columns of patches
    clip_frames: int = 16
    memory_frames: int = 2  # most recent latent frames read from the memory bank
    anchor_frames: int = 0  # anchor frames read before them
    prediction: str = "flow"
    output: str = "prediction"  # what the network puts out: that prediction, or the clean "sample" itself
    portrait_residual: bool = False  # noise and denoise the difference to the portrait, not the clip itself
    residual_scale: float = 1.0  # standard deviation of that difference over the training latents
    fps: float = 25.0
    memory_noise: float = 0.0  # default sigma of the noise on memory at inference, in latent units
    audio_guidance: float = 1.0  # default scale of the audio guidance at inference; 1 is none
    steps: int = 0  # default number of sampling steps; 0 is what is usual for its prediction
    shift: float = 1.0  # of a flow model's default schedule; above 1 it spends more steps at high noise

    def validate(self) -> None:
        _require_positive(
            self, "hidden_size", "depth", "num_heads", "in_channels", "patch_size", "linear_head_dim"
        )
        _require_positive(
            self,
            "mlp_ratio",
            "audio_token_dim",
            "grid_size",
            "clip_frames",
            "fps",
            "residual_scale",
            "audio_guidance",
            "shift",
        )
        _require_at_most(self, "layers", "depth")
        _require_at_most(self, "width", "hidden_size", "in_channels", "audio_token_dim", "mlp_ratio")
        _require_at_most(self, "frames", "clip_frames", "memory_frames", "anchor_frames")
        _require_at_most(self, "side", "grid_size", "patch_size")
        _require_at_most(self, "fps", "fps")
        for name in ("num_heads", "linear_head_dim"):
            _require(
                self.hidden_size % getattr(self, name) == 0,
                f"dit config: hidden_size={self.hidden_size} is not a multiple of {name}={getattr(self, name)}",
            )
        _require(
            self.hidden_size % 4 == 0,
            f"dit config: hidden_size={self.hidden_size} is not a multiple of 4, which the position tables need",
        )
        for name in ("portrait_fusion", "audio_fusion"):
            value = getattr(self, name)
            _require(value in FUSIONS, f"dit config: {name}={value!r} must be one of {list(FUSIONS)}")
        _require(
            self.spatial_attention in ("linear", "softmax"),
            f"dit config: spatial_attention={self.spatial_attention!r} must be linear or softmax",
        )
        _require(
            self.prediction in PREDICTIONS,
            f"dit config: prediction={self.prediction!r} not in {list(PREDICTIONS)}",
        )
        _require(
            self.output == "prediction" or (self.output == "sample" and self.prediction == "flow"),
            f"dit config: output={self.output!r} must be prediction, or sample with prediction='flow'",
        )
        _require(
            not (self.learned_variance and self.portrait_residual),
            "dit config: learned_variance does not go with portrait_residual; switch one off",
        )
        _require(
            not self.learned_variance or self.prediction == "epsilon",
            f"dit config: learned_variance needs prediction='epsilon', not {self.prediction!r}",
        )
        _require(0 <= self.steps <= 1000, f"dit config: steps={self.steps} must be between 0 and 1000")
        _require(
            self.memory_frames >= 0 and self.anchor_frames >= 0,
            f"dit config: memory_frames={self.memory_frames} and anchor_frames={self.anchor_frames} must be >= 0",
        )

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learned_variance else 1)

    @property
    def bank_frames(self) -> int:
        """Frames the memory bank hands to the model: anchors, then the most recent ones."""
        return self.anchor_frames + self.memory_frames


@dataclass(frozen=True, kw_only=True)
class FacesConfig(Config):
    """Shape of the networks that find faces and their points (`face_landmarks`)."""

    kind: ClassVar[str] = "faces"

    detector_widths: tuple[int, ...] = (16, 24, 40, 56, 80)  # at 1/2, 1/4, ... 1/32 of the picture
    mesh_side: int = 128  # pixels of an upright face, cut out
    mesh_widths: tuple[int, ...] = (16, 32, 48, 80, 96)
    code: int = 80  # numbers that the basis of shapes turns into points
    # Of the qualities of a face, above which its eyes are covered, its mouth is, its eyes are closed; and the
    # height of eyes by their width, up to which they may be.
    limits: tuple[float, float, float, float] = (0.6, 0.6, 0.6, 0.16)

    def validate(self) -> None:
        _require_positive(self, "detector_widths", "mesh_side", "mesh_widths", "code")
        _require_at_most(self, "width", "detector_widths", "mesh_widths", "code")
        _require_at_most(self, "side", "mesh_side")
        for name in ("detector_widths", "mesh_widths"):
            _require(len(getattr(self, name)) == 5, f"faces config: {name} needs five numbers")
        _require_positive(self, "limits")
        _require(len(self.limits) == 4, "faces config: limits needs four numbers")
        _require(self.mesh_side % 32 == 0, f"faces config: mesh_side={self.mesh_side} must be a multiple of 32")


_KINDS: dict[str, type[Config]] = {
    c.kind: c
    for c in (
        AutoencoderConfig,
        AudioEncoderConfig,
        AudioProjectionConfig,
        CarryConfig,
        DiTConfig,
        FacesConfig,
    )
}


def config_class(kind: str) -> type[Config]:
    """The config class of a checkpoint kind. Raises: ConfigError for an unknown kind."""
    if kind not in _KINDS:
        raise ConfigError(f"unknown kind of model {kind!r}; known are {sorted(_KINDS)}")
    return _KINDS[kind]
