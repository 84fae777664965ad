"""Memory bank: the few latent frames that the next clip is conditioned on (docs/model.md, Memory bank).

It holds the most recent frames *as sampled* and, before them on the time axis, anchor frames that never change
once set. Its size is constant whatever the length of the video. A cold bank repeats the portrait.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, ConfigError, NumericalError
from ..files import atomic_path
from ..networks.checkpoint import load_tensors, read_header
from ..networks.configs import DiTConfig
from .clip import seeded_generator

FORMAT = "letstalk.memory_bank"
DIGEST = "sha256"
RE_ANCHOR = 0.5  # of the way to the portrait


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """How the bank works; all off in the paper-faithful mode.

    noise_sigma: noise on the recent frames, x' = sqrt(1 - s^2) x + s n, as in training; 0 <= s < 1.
    match_statistics: the recent frames get the portrait's mean and deviation, per channel.
    drift_level: a clip that scores less (`drift.drift_score`, 0 to 1) is followed by `re_anchor`; 0: never.
    """

    noise_sigma: float = 0.0
    match_statistics: bool = False
    drift_level: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.match_statistics, bool):
            raise ConfigError(f"match_statistics={self.match_statistics!r:.40} must be true or false")
        if not 0 <= self.noise_sigma < 1:  # NaN, too
            raise ConfigError(f"memory noise {self.noise_sigma} must be >= 0 and < 1; 0 is none")
        if not 0 <= self.drift_level < 1:
            raise ConfigError(f"drift level {self.drift_level} must be >= 0 and < 1; 0 never re-anchors")


class MemoryBank:
    """`recent` last frames and `anchors` fixed ones (the portrait, then the first frames of the video).

    Latents are in model space (times scaling_factor). Until the video is longer than a bank's place, the portrait
    fills it. Noise of a read depends on (seed, clips written so far) only, so a resumed run repeats it.
    `latent_space` may name the autoencoder, for hosts that compare; it is saved and not used here.
    """

    def __init__(
        self, recent: int = 2, anchors: int = 0, *, settings: MemorySettings | None = None, seed: int = 0
    ) -> None:
        if recent < 0 or anchors < 0:
            raise ConfigError(f"memory bank: recent={recent} and anchors={anchors} must be >= 0")
        self.recent, self.anchors = recent, anchors
        self.settings = settings or MemorySettings()
        self.seed = seed
        self.latent_space = ""
        self.clips_written = 0
        self._early = 0  # frames of the video kept as anchors so far
        self._portrait: Tensor | None = None
        self._recent: Tensor | None = None
        self._anchors: Tensor | None = None

    @classmethod
    def for_model(cls, config: DiTConfig, *, settings: MemorySettings | None = None, seed: int = 0) -> MemoryBank:
        """A bank of the size a model was trained with; memory noise defaults to the model's own."""
        settings = settings or MemorySettings(noise_sigma=config.memory_noise)
        return cls(config.memory_frames, config.anchor_frames, settings=settings, seed=seed)

    @property
    def is_empty(self) -> bool:
        return self._portrait is None

    @property
    def latest(self) -> Tensor | None:
        """The recent frames (b, m, c, h, w); None before the first clip, and where none are kept."""
        return self._recent if self.clips_written and self.recent else None

    def reset(self, portrait: Tensor) -> None:
        """Start anew from a portrait latent. Shapes: portrait (b, c, h, w).

        Raises: ConfigError, NumericalError.
        """
        if portrait.ndim != 4:
            raise ConfigError(f"memory bank: portrait has shape {list(portrait.shape)}, needs (b, c, h, w)")
        _finite(portrait, "portrait")
        self.clips_written = self._early = 0
        self._portrait = portrait.detach().float().clone()
        self._recent = repeat(self._portrait, "b c h w -> b m c h w", m=self.recent)
        self._anchors = repeat(self._portrait, "b c h w -> b m c h w", m=self.anchors)

    def start(self, portrait: Tensor) -> None:
        """Be on the portrait's device, and if nothing is remembered yet, start from it."""
        if self.is_empty:
            self.reset(portrait)
        self.to(portrait.device)

    def to(self, device: torch.device | str) -> None:
        """Move the frames. A saved bank comes back on the CPU, whose sums differ from others' in the last bits."""
        self._portrait, self._recent, self._anchors = (t.to(device) for t in self._state())

    def write(self, latents: Tensor) -> None:
        """Remember a finished clip. Shapes: latents (b, f, c, h, w). Raises: ConfigError, NumericalError."""
        portrait, recent, anchors = self._state()
        if latents.ndim != 5 or latents[:, 0].shape != portrait.shape:
            raise ConfigError(
                f"memory bank: clip has shape {list(latents.shape)}, needs (b, f, c, h, w) around the portrait's"
                f" {list(portrait.shape)}; reset the bank for another portrait or size"
            )
        _finite(latents, f"clip {self.clips_written + 1}")
        latents = latents.detach().to(recent)
        free = max(0, self.anchors - 1 - self._early)  # place 0 stays the portrait
        early = latents[:, :free]
        place = 1 + self._early
        self._anchors = torch.cat([anchors[:, :place], early, anchors[:, place + early.shape[1] :]], dim=1)
        self._early += early.shape[1]
        # clone: a slice would keep the whole clip alive
        self._recent = torch.cat([recent, latents], dim=1)[
            :, recent.shape[1] + latents.shape[1] - self.recent :
        ].clone()
        self.clips_written += 1

    def re_anchor(self) -> None:
        """Pull the recent frames back: the portrait's statistics, and half of the way to the portrait itself.

        Half, because the next clip goes on from these frames: the whole way would be a jump in the video.
        """
        portrait, recent, _ = self._state()
        if self.recent:
            matched = _match_statistics(recent, portrait)
            self._recent = torch.lerp(matched, rearrange(portrait, "b c h w -> b 1 c h w"), RE_ANCHOR)

    def read(self) -> Tensor:
        """What the next clip is conditioned on: anchors, then recent frames.

        Shapes: -> (b, anchors + recent, c, h, w).
        """
        portrait, recent, anchors = self._state()
        if self.settings.match_statistics and self.recent:
            recent = _match_statistics(recent, portrait)
        sigma = self.settings.noise_sigma
        if sigma > 0 and self.recent:
            noise = torch.randn(recent.shape, generator=seeded_generator(self.seed, self.clips_written, "memory"))
            recent = math.sqrt(1 - sigma**2) * recent + sigma * noise.to(recent)
        return torch.cat([anchors, recent], dim=1)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and integers that `load_state_dict` restores exactly."""
        portrait, recent, anchors = self._state()
        return {
            "portrait": portrait.clone(),
            "recent": recent.clone(),
            "anchors": anchors.clone(),
            "clips_written": self.clips_written,
            "early": self._early,
            "seed": self.seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a bank of the same size. Raises: ConfigError when sizes or names do not fit."""
        try:
            portrait, recent, anchors = state["portrait"], state["recent"], state["anchors"]
            counts = [int(state[k]) for k in ("clips_written", "early", "seed")]
            b, _, _, _ = portrait.shape
            rest = portrait.shape[1:]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"memory bank: its state is incomplete ({error})") from None
        if min(counts[:2]) < 0:
            raise ConfigError(f"memory bank: clips_written={counts[0]} and early={counts[1]} must be >= 0")
        for name, tensor, frames in (("recent", recent, self.recent), ("anchors", anchors, self.anchors)):
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != (b, frames, *rest):
                found = list(tensor.shape) if isinstance(tensor, Tensor) else f"none, but {tensor!r:.40}"
                raise ConfigError(
                    f"memory bank: saved {name} frames have shape {found}, this bank needs"
                    f" {[b, frames, *rest]}; use a bank saved with the same model"
                )
        self._portrait, self._recent, self._anchors = (t.float().clone() for t in (portrait, recent, anchors))
        self.clips_written, self._early, self.seed = counts

    def save(self, path: str | os.PathLike[str], *, durable: bool = False) -> None:
        """Write the bank to a safetensors file; `durable` as for `atomic_path`. Raises: OutputError."""
        state = self.state_dict()
        tensors = {k: v.cpu().contiguous() for k, v in state.items() if isinstance(v, Tensor)}
        values = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
        header = {**values, "recent": self.recent, "anchors": self.anchors, "settings": asdict(self.settings)}
        header["latent_space"] = self.latent_space
        header[DIGEST] = _digest(header, tensors)  # not metadata of its own, whose order safetensors does not keep
        with atomic_path(Path(path), durable=durable) as temporary:
            save_file(tensors, str(temporary), metadata={FORMAT: json.dumps(header)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu") -> MemoryBank:
        """Read a bank written by `save`. Raises: CheckpointError."""
        metadata = read_header(path).metadata
        if FORMAT not in metadata:
            raise CheckpointError(f"{path}: is not a memory bank; give a file that a memory bank was saved to")
        try:
            header = json.loads(metadata[FORMAT])
            saved = header.pop(DIGEST, None)
            digest = partial(_digest, dict(header))
            settings = MemorySettings(**header.pop("settings"))
            recent, anchors = header.pop("recent"), header.pop("anchors")
            if type(recent) is not int or type(anchors) is not int:
                raise ValueError(f"recent={recent!r:.40} and anchors={anchors!r:.40} must be whole numbers")
            bank = cls(recent, anchors, settings=settings)
            bank.latent_space = str(header.pop("latent_space", ""))
            tensors = load_tensors(path, device=device)
            if saved not in (None, digest(tensors)):
                raise ValueError("its contents are not those that were saved")
            bank.load_state_dict({**header, **tensors})
            for name, tensor in zip(("portrait", "recent", "anchors"), bank._state(), strict=True):
                _finite(tensor, f"saved {name}")
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: is a damaged memory bank ({error}); save it again") from None
        except NumericalError:
            raise CheckpointError(f"{path}: holds NaN or infinity; save the memory of another run") from None
        return bank

    def _state(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._portrait is None or self._recent is None or self._anchors is None:
            raise ConfigError("memory bank: is empty; call reset(portrait) or load a saved bank first")
        return self._portrait, self._recent, self._anchors


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A hash of everything in a file."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _finite(latents: Tensor, what: str) -> None:
    if not torch.isfinite(latents).all():
        raise NumericalError(
            f"memory bank: the latents of the {what} hold NaN or infinity; they were not remembered"
        )


def _match_statistics(frames: Tensor, portrait: Tensor) -> Tensor:
    """Frames (b, m, c, h, w) with the per-channel mean and deviation of the portrait (b, c, h, w)."""
    deviation, mean = torch.std_mean(frames, dim=(1, 3, 4), keepdim=True, correction=0)
    wanted = rearrange(portrait, "b c h w -> b 1 c h w")
    to_deviation, to_mean = torch.std_mean(wanted, dim=(1, 3, 4), keepdim=True, correction=0)
    return (frames - mean) / deviation.clamp_min(1e-6) * to_deviation + to_mean
