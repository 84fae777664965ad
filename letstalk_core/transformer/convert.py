"""The authors' checkpoint format <-> ours (docs/model.md, Interchange): names only; no weight is changed.

Such a file is a dict with "model", "ema" and "audioproj". It is read with `weights_only`, so it cannot run code.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..configs import AudioProjectionConfig, DiTConfig
from ..errors import CheckpointError
from ..nn.embeddings import sincos, space_table
from ..presets import AUDIO_PROJECTION, DIT

__all__ = [
    "OfficialCheckpoint",
    "dit_config_from_official",
    "dit_from_official",
    "dit_to_official",
    "load_official",
    "projection_config_from_official",
    "projection_from_official",
    "projection_to_official",
]

_DIT = {
    "x_embedder.proj": "patch_embed.proj",
    "t_embedder.mlp.0": "time_embed.linear_1",
    "t_embedder.mlp.2": "time_embed.linear_2",
    "final_layer.linear": "final.linear",
    "final_layer.adaLN_modulation.1": "final.modulation.linear",
}
_BLOCK = {
    "temporal_norm1": "temporal_norm",
    "temporal_attn.qkv": "temporal_attention.qkv",
    "temporal_attn.proj": "temporal_attention.out",
    "temporal_fc": "temporal_out",
    "cross_attn.q_proj": "guide_attention.audio.query",
    "cross_attn.k_proj": "guide_attention.audio.key",
    "cross_attn.v_proj": "guide_attention.audio.value",
    "cross_attn.proj": "guide_attention.audio.out",
    "attn.qkv": "spatial_attention.qkv",
    "attn.proj": "spatial_attention.out",
    "mlp.inverted_conv.conv": "feed_forward.conv_inverted",
    "mlp.depth_conv.conv": "feed_forward.conv_depth",
    "mlp.point_conv.conv": "feed_forward.conv_point",
    "adaLN_modulation.1": "modulation.linear",
}
_PROJECTION = {"proj1": "linear_1", "proj2": "linear_2", "proj3": "linear_3", "norm": "norm"}
_SPACE, _TIME = "pos_embed", "long_temp_embed"  # fixed tables in their files; ours are computed
_NAME = re.compile(r"(blocks\.\d+\.)?(.+)\.(weight|bias)")
TABLE_TOLERANCE = 0.02  # tables may have gone through bfloat16


@dataclass(frozen=True)
class OfficialCheckpoint:
    """An authors' file in our terms: configs, and weights under our names."""

    dit_config: DiTConfig
    dit: dict[str, Tensor]
    projection_config: AudioProjectionConfig | None
    projection: dict[str, Tensor] | None


def _rename(
    state: Mapping[str, Tensor], names: Mapping[str, str], block_names: Mapping[str, str]
) -> dict[str, Tensor]:
    renamed, foreign = {}, []
    for key, tensor in state.items():
        match = _NAME.fullmatch(key)
        block, layer, kind = match.groups() if match else (None, key, "")
        new = block_names.get(layer) if block else names.get(layer)
        if match is None or new is None:
            foreign.append(key)
        else:
            renamed[f"{block or ''}{new}.{kind}"] = tensor
    if foreign:
        more = ", …" if len(foreign) > 5 else ""
        raise CheckpointError(
            f"checkpoint: {len(foreign)} names are foreign: {', '.join(sorted(foreign)[:5])}{more};"
            " only a LetsTalk denoiser with its default fusion can be converted"
        )
    return renamed


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {ours: theirs for theirs, ours in names.items()}


def _tables(config: DiTConfig) -> dict[str, Tensor]:
    dim = config.hidden_size
    space = space_table(config.grid_size, config.grid_size, dim, torch.device("cpu"), torch.float32)
    time = sincos(torch.arange(config.bank_frames + config.clip_frames), dim).float()
    return {_SPACE: space[None].clone(), _TIME: time[None]}


def dit_from_official(state: Mapping[str, Tensor], config: DiTConfig | None = None) -> dict[str, Tensor]:
    """Their denoiser weights under our names, without the position tables.

    With a config the tables are compared with those that our denoiser computes.
    Raises: CheckpointError naming the first five foreign names, or a table that differs.
    """
    for name, table in (_tables(config) if config else {}).items():
        found = state.get(name)
        if found is not None and (
            found.numel() != table.numel()
            or not torch.allclose(found.float().reshape(table.shape), table, atol=TABLE_TOLERANCE)
        ):
            raise CheckpointError(
                f"checkpoint: {name} {list(found.shape)} is not the fixed sine-cosine table {list(table.shape)} of"
                " this denoiser; check the grid and the clip length of the config"
            )
    return _rename({k: v for k, v in state.items() if k not in (_SPACE, _TIME)}, _DIT, _BLOCK)


def dit_to_official(state: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """Our denoiser weights under their names, with the position tables. Raises: CheckpointError as above."""
    return {**_rename(state, _inverse(_DIT), _inverse(_BLOCK)), **_tables(config)}


def projection_from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their audio projection under our names. Raises: CheckpointError."""
    return _rename(state, _PROJECTION, {})


def projection_to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our audio projection under their names. Raises: CheckpointError."""
    return _rename(state, _inverse(_PROJECTION), {})


def dit_config_from_official(state: Mapping[str, Tensor], **changes: Any) -> DiTConfig:
    """The config that the shapes of their weights imply; `changes` sets what shapes cannot tell.

    Shapes do not tell the number of heads (taken from the preset of the same width), nor how the rows of the time
    table divide (two memory frames). Raises: CheckpointError if a needed tensor is missing or the width unknown.
    """
    patch, final = _need(state, "x_embedder.proj.weight"), _need(state, "final_layer.linear.weight")
    inner, audio = (_need(state, f"blocks.0.{n}.weight") for n in ("mlp.point_conv.conv", "cross_attn.k_proj"))
    dim, channels, patch_size = patch.shape[0], patch.shape[1], patch.shape[2]
    heads = {c.hidden_size: c.num_heads for c in DIT.values()}
    if dim not in heads and "num_heads" not in changes:
        raise CheckpointError(
            f"checkpoint: no preset is {dim} wide (known: {sorted(heads)}); give the number of heads (num_heads)"
        )
    values: dict[str, Any] = {
        "hidden_size": dim,
        "depth": 1 + max(int(m.group(1)) for k in state if (m := re.match(r"blocks\.(\d+)\.", k))),
        "num_heads": heads.get(dim),
        "in_channels": channels,
        "learned_variance": final.shape[0] == 2 * channels * patch_size**2,
        "patch_size": patch_size,
        "mlp_ratio": inner.shape[1] / dim,
        "audio_token_dim": audio.shape[1],
        "prediction": "epsilon",
    }
    if _SPACE in state:
        values["grid_size"] = (math.isqrt(state[_SPACE].shape[-2]),) * 2
    if _TIME in state:
        values["clip_frames"] = state[_TIME].shape[-2] - DiTConfig.memory_frames
    return DiTConfig(**{**values, **changes})


def projection_config_from_official(state: Mapping[str, Tensor], **changes: Any) -> AudioProjectionConfig:
    """The config of their audio projection; the window and the layers are the paper's unless changed."""
    first, last, norm = (_need(state, f"{n}.weight") for n in ("proj1", "proj3", "norm"))
    base = AUDIO_PROJECTION["base"]
    window, layers = changes.get("window", base.window), changes.get("layers", base.layers)
    values = {
        "window": window,
        "layers": layers,
        "encoder_dim": first.shape[1] // (window * layers),
        "hidden_size": first.shape[0],
        "tokens": last.shape[0] // norm.shape[0],
        "token_dim": norm.shape[0],
    }
    return AudioProjectionConfig(**{**values, **changes})


def load_official(path: str | os.PathLike[str], *, weights: str = "ema", **changes: Any) -> OfficialCheckpoint:
    """Read an authors' checkpoint; `weights` is "ema" or "model", `changes` are of the denoiser's config.

    Raises: CheckpointError if the file is missing, damaged, holds more than tensors, or is of another model.
    """
    path = Path(path)
    try:
        # Training scripts commonly save their parsed arguments beside the weights: a plain record, safe to build.
        allow = getattr(torch.serialization, "safe_globals", None)  # torch >= 2.5
        with allow([argparse.Namespace]) if allow else contextlib.nullcontext():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; give the path of a .pt checkpoint") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: is damaged, or holds Python objects beside tensors, which are never loaded;"
            " get it from its authors"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); get the file again") from None
    if not isinstance(content, dict) or not isinstance(content.get(weights), dict):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: has no weights {weights!r} (it holds {found}); choose ema or model")
    state = _state(content[weights])
    config = dit_config_from_official(state, **changes)
    dit = dit_from_official(state, config)
    if not isinstance(content.get("audioproj"), dict):
        return OfficialCheckpoint(config, dit, None, None)
    projection = _state(content["audioproj"])
    return OfficialCheckpoint(
        config, dit, projection_config_from_official(projection), projection_from_official(projection)
    )


def _state(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, without the prefix that distributed training puts before every name."""
    return {str(k).removeprefix("module."): v for k, v in values.items() if isinstance(v, Tensor)}


def _need(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise CheckpointError(
            f"checkpoint: has no {name}; it is not a LetsTalk model (first names: {sorted(state)[:5]})"
        )
    return state[name]
