"""The authors' checkpoint format <-> ours (docs/model.md, Interchange): names only; no weight is changed.

A .pt or .ckpt file is read with `weights_only`, so it cannot run code; `official_layout` finds its networks.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ..checkpoint import load_pickled_tensors, load_tensors
from ..configs import AudioProjectionConfig, DiTConfig
from ..nn.embeddings import sincos, space_table
from ..presets import AUDIO_PROJECTION, AUTOENCODER, DIT
from .official_layout import find_networks, flat_names

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
PAPER_CLIP = 16  # frames


@dataclass(frozen=True)
class OfficialCheckpoint:
    """An authors' file in our terms: configs, and weights under our names."""

    dit_config: DiTConfig
    dit: dict[str, Tensor]
    projection_config: AudioProjectionConfig | None
    projection: dict[str, Tensor] | None
    notes: tuple[str, ...] = ()  # what was assumed, and what is odd, one line each


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
    if config is not None:
        _compare_tables(state, config)
    return _rename({k: v for k, v in state.items() if k not in (_SPACE, _TIME)}, _DIT, _BLOCK)


def _compare_tables(state: Mapping[str, Tensor], config: DiTConfig) -> None:
    for name, table in _tables(config).items():
        found = state.get(name)
        if found is not None and (
            found.numel() != table.numel()
            or not torch.allclose(found.float().reshape(table.shape), table, atol=TABLE_TOLERANCE)
        ):
            raise CheckpointError(
                f"checkpoint: {name} {list(found.shape)} is not the fixed sine-cosine table {list(table.shape)} of"
                f" this denoiser; check the grid, and its {config.bank_frames} memory frames (--memory-frames) and"
                f" {config.clip_frames} of a clip (--clip-frames)"
            )


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
    table divide: see `_frames`. Raises: CheckpointError if a needed tensor is missing, the width is unknown, or
    the model is of the authors' other family; ConfigError for frames that the table has no rows for.
    """
    _refuse_softmax(state)
    patch, final = _need(state, "x_embedder.proj.weight", 4), _need(state, "final_layer.linear.weight", 2)
    inner = _need(state, "blocks.0.mlp.point_conv.conv.weight", 4)
    audio = _need(state, "blocks.0.cross_attn.k_proj.weight", 2)
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
        values["grid_size"] = (math.isqrt(_need(state, _SPACE, 3).shape[1]),) * 2
    return DiTConfig(**{**values, **_frames(state, changes), **changes})


def _refuse_softmax(state: Mapping[str, Tensor]) -> None:
    """Raises: CheckpointError for the authors' first family of denoisers, which no config here describes."""
    signs = [name for name in ("mlp.fc1.weight", "attn.qkv.bias") if f"blocks.0.{name}" in state]
    patch = state.get("x_embedder.proj.weight")
    if signs and patch is not None:
        raise CheckpointError(
            f"checkpoint: has blocks.0.{signs[0]}: a denoiser of the softmax / SD-VAE family ({patch.shape[1]}"
            f" latent channels, patches of {patch.shape[-1]}), whose attention and feed-forward differ; only the"
            " family with linear attention, over DC-AE latents, can be converted"
        )


def _frames(state: Mapping[str, Tensor], changes: Mapping[str, Any]) -> dict[str, int]:
    """Memory and clip frames, which share the rows of one table.

    What `changes` leaves open: the clip has the paper's 16 frames if there are more rows, and memory the rest;
    with fewer, memory has the paper's 2. Raises: ConfigError.
    """
    if _TIME not in state:
        return {}
    rows = _need(state, _TIME, 3).shape[1] - changes.get("anchor_frames", 0)
    memory, clip = changes.get("memory_frames"), changes.get("clip_frames")
    if memory is None:
        memory = rows - clip if clip is not None else max(rows - PAPER_CLIP, DiTConfig.memory_frames)
    clip = rows - memory if clip is None else clip
    if memory < 0 or clip < 1 or memory + clip != rows:
        raise ConfigError(
            f"the checkpoint's time table has {rows} rows, which are no {memory} memory frames (--memory-frames)"
            f" and {clip} of a clip (--clip-frames); leave one of them out"
        )
    return {"memory_frames": memory, "clip_frames": clip}


def _notes(state: Mapping[str, Tensor], config: DiTConfig, changes: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if not {"memory_frames", "clip_frames"} & changes.keys():
        rows = f"time table of {state[_TIME].shape[1]} rows" if _TIME in state else "missing time table"
        notes.append(
            f"note: the {rows} does not say how it divides; taken as {config.memory_frames} memory frames and"
            f" {config.clip_frames} of a clip (otherwise: --memory-frames, --clip-frames)"
        )
    known = sorted({c.latent_channels for c in AUTOENCODER.values()})
    if config.in_channels not in known:
        notes.append(
            f"warning: the denoiser takes {config.in_channels} latent channels, and no autoencoder here has so"
            f" many (DC-AE: {', '.join(map(str, known))}); nothing can be generated without one"
        )
    return tuple(notes)


def projection_config_from_official(state: Mapping[str, Tensor], **changes: Any) -> AudioProjectionConfig:
    """The config of their audio projection; the window and the layers are the paper's unless changed."""
    first, last, norm = (_need(state, f"{n}.weight", d) for n, d in (("proj1", 2), ("proj3", 2), ("norm", 1)))
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

    Raises: CheckpointError if the file is missing, damaged, holds more than tensors, or is of another model;
    ConfigError for changes that do not fit it.
    """
    path = Path(path)
    content = load_tensors(path) if path.suffix == ".safetensors" else load_pickled_tensors(path)
    try:
        state, projection = find_networks(flat_names(content), weights)
        config = dit_config_from_official(state, **changes)
        dit, notes = dit_from_official(state, config), _notes(state, config, changes)
        if projection is None:
            return OfficialCheckpoint(config, dit, None, None, notes)
        shape = projection_config_from_official(projection)
        return OfficialCheckpoint(config, dit, shape, projection_from_official(projection), notes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {str(error).removeprefix('checkpoint: ')}") from None


def _need(state: Mapping[str, Tensor], name: str, dimensions: int) -> Tensor:
    if name not in state:
        raise CheckpointError(
            f"checkpoint: has no {name}; it is not a LetsTalk model (first names: {sorted(state)[:5]})"
        )
    if state[name].ndim != dimensions or state[name].numel() == 0:
        raise CheckpointError(
            f"checkpoint: {name} is {list(state[name].shape)}, needs {dimensions} dimensions; it is not a LetsTalk"
            " model"
        )
    return state[name]
