"""Networks from files: one at a time, or the four of a bundle that make a talking portrait."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, ConfigError, LetsTalkError
from ..files import file_sha256
from ..protocols import Device, DType
from .audio_encoder import AudioEncoder
from .autoencoder.dc_ae import AutoencoderDC
from .carry import Carry
from .checkpoint import CheckpointHeader, check_keys, load_tensors, read_header
from .config import Config
from .configs import AudioEncoderConfig
from .face_landmarks import FaceNetworks
from .lips import Lips
from .projection import AudioProjection
from .transformer.dit import LetsTalkDiT

PRESENTER_KEY = "letstalk.presenter"  # in the metadata of model files: whose model it is
DEMO_FOLDER = Path(__file__).resolve().parents[1] / "demo"
NETWORKS: dict[str, Callable[..., nn.Module]] = {  # by the kind of their configs
    "autoencoder": AutoencoderDC,
    "audio_encoder": AudioEncoder,
    "audio_projection": AudioProjection,
    "carry": Carry,
    "dit": LetsTalkDiT,
    "faces": FaceNetworks,
    "lips": Lips,
}
FILES = {"autoencoder": "autoencoder", "audio_encoder": "audio_encoder", "audio_projection": "dit", "dit": "dit"}
OPTIONAL = ("carry", "lips")  # files of a bundle that it may lack
EQUAL = (  # kinds and fields of their configs that must be the same in networks of one training
    (("autoencoder", "latent_channels"), ("dit", "in_channels")),
    (("audio_encoder", "hidden_size"), ("audio_projection", "encoder_dim")),
    (("audio_encoder", "num_hidden_layers"), ("audio_projection", "layers")),
    (("audio_projection", "token_dim"), ("dit", "audio_token_dim")),
    (("audio_encoder", "hidden_size"), ("lips", "encoder_dim")),
    (("audio_encoder", "num_hidden_layers"), ("lips", "layers")),
)


def build_model(config: Config, *, device: Device = None, dtype: DType = None) -> nn.Module:
    """The network of a config, its weights not yet meaningful. Raises: ConfigError."""
    if config.kind not in NETWORKS:
        raise ConfigError(f"no network is known for {type(config).__name__}")
    try:
        return NETWORKS[config.kind](config, device=device, dtype=dtype)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:  # of torch's layers
        if isinstance(error, LetsTalkError):
            raise
        raise ConfigError(f"{config.kind} config: its layers cannot be made ({error})") from None


def load_model(
    path: str | os.PathLike[str], kind: str | None = None, *, device: Device = None, dtype: DType = torch.float32
) -> Any:
    """Load one network of a LetsTalk safetensors file, in eval mode and without gradients.

    `kind` chooses among the parts of the file and may be left out if it has one. Raises: CheckpointError if the
    file is missing, damaged, foreign, of another kind, or if its tensors do not fit its config.
    """
    header = read_header(path)
    if kind is None:
        if len(header.parts) != 1:
            found = sorted(c.kind for c in header.parts.values()) or "no LetsTalk config"
            raise CheckpointError(f"{path}: holds {found}; name the kind of model to load")
        ((name, config),) = header.parts.items()
    else:
        name, config = header.part(kind)
    tensors = load_tensors(path, prefix=f"{name}.")
    try:
        model = build_model(config, device="meta", dtype=dtype)  # skips filling weights that are replaced at once
        check_keys(path, tensors, model.state_dict())
        if isinstance(config, AudioEncoderConfig):  # transformers' modules need real weights
            model = build_model(config, dtype=dtype)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    placed = {k: v.to(device=device, dtype=dtype if v.is_floating_point() else None) for k, v in tensors.items()}
    model.load_state_dict(placed, assign=True)
    if device is not None:
        model.to(device)
    return model.eval().requires_grad_(False)


@dataclass
class ModelBundle:
    """The networks of one talking portrait: four, and masks where the model has them.

    Raises: ConfigError when they do not belong together.
    """

    autoencoder: AutoencoderDC
    audio_encoder: AudioEncoder
    audio_projection: AudioProjection
    dit: LetsTalkDiT
    path: Path | None = None
    carry: Carry | None = None  # brings the portrait's own detail into decoded frames
    lips: Lips | None = None  # by which a photograph's own face speaks
    presenter: str = ""  # the person whose model this is, as its files say
    _hashes: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        networks = {kind: getattr(self, kind) for kind in (*FILES, "lips")}
        _check_bundle({kind: network.config for kind, network in networks.items() if network is not None})

    @property
    def device(self) -> torch.device:
        return next(self.dit.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.dit.parameters()).dtype

    @property
    def is_demo(self) -> bool:
        """Whether these are the networks that come with the package."""
        return self.path is not None and self.path.resolve() == DEMO_FOLDER.resolve()

    @property
    def pixels_per_token(self) -> int:
        """Image sides must be multiples of this."""
        return self.autoencoder.config.spatial_factor * self.dit.config.patch_size

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file of the bundle; empty for networks that were not loaded from files."""
        if not self._hashes and self.path is not None:
            names = sorted({*FILES.values(), *(kind for kind in OPTIONAL if getattr(self, kind) is not None)})
            self._hashes = {name: file_sha256(self.path / f"{name}.safetensors") for name in names}
        return dict(self._hashes)


def _check_bundle(configs: Mapping[str, Any]) -> None:
    """Raises: ConfigError if the networks of these configs, by kind, do not belong together."""
    for (left, a), (right, b) in EQUAL:
        if left in configs and right in configs and getattr(configs[left], a) != getattr(configs[right], b):
            one, other = f"{left.replace('_', ' ')} {a}", f"{right.replace('_', ' ')} {b}"
            raise ConfigError(
                f"the models do not belong together: {one}={getattr(configs[left], a)} but"
                f" {other}={getattr(configs[right], b)}; use files of one training"
            )


def load_bundle(
    folder: str | os.PathLike[str] | None = None, *, device: Device = None, dtype: DType = torch.float32
) -> ModelBundle:
    """Load a model folder: autoencoder.safetensors, audio_encoder.safetensors and dit.safetensors (with its
    projection), and, where they are there, carry.safetensors and lips.safetensors.

    Without a folder the demo model of the package. Raises: CheckpointError naming the missing, damaged or misfit
    file.
    """
    path = DEMO_FOLDER if folder is None else Path(folder)
    needed = [f"{name}.safetensors" for name in sorted(set(FILES.values()))]
    try:
        found = path.is_dir()
    except OSError:  # a name that is too long
        found = False
    if not found:
        raise CheckpointError(f"{path}: is not a folder; give one that holds {', '.join(needed)}")
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}; a model folder holds {', '.join(needed)}")
    headers: dict[str, CheckpointHeader] = {}
    for kind, name in FILES.items():  # all headers first: errors come before long loads
        headers[kind] = read_header(path / f"{name}.safetensors")
    configs: dict[str, Any] = {kind: header.part(kind)[1] for kind, header in headers.items()}
    lips = path / "lips.safetensors"
    if lips.is_file():
        configs["lips"] = read_header(lips).part("lips")[1]
    try:
        _check_bundle(configs)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    models = {kind: load_model(header.path, kind, device=device, dtype=dtype) for kind, header in headers.items()}
    presenter = headers["dit"].metadata.get(PRESENTER_KEY, "")[:200]
    more = {kind: load_optional(path, kind, device=device, dtype=dtype) for kind in OPTIONAL}
    return ModelBundle(**models, **more, path=path, presenter=presenter)


def load_optional(folder: Path, kind: str, *, device: Device = None, dtype: DType = torch.float32) -> Any:
    """One of the `OPTIONAL` networks of a model folder; None where it has none. Raises: CheckpointError."""
    path = folder / f"{kind}.safetensors"
    return load_model(path, kind, device=device, dtype=dtype) if path.is_file() else None
