"""Start values from a public SANA transformer: its spatial attention and Mix-FFN are the same layers as ours.

With them come what gives those layers their inputs and gates: patch embedding, timestep embedding and modulation.
A block then computes what SANA's block computes without text. Nothing in SANA corresponds to temporal and audio
attention or to our final layer. Files of `diffusers` (SanaTransformer2DModel) and the authors' own are read.
Source: Xie et al. 2024 (SANA, arXiv 2410.10629).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from letstalk_core.errors import CheckpointError
from letstalk_core.networks.checkpoint import load_pickled_tensors, load_tensors
from letstalk_core.networks.transformer.dit import LetsTalkDiT

_OUTSIDE = {  # layers before the blocks: theirs (diffusers, original) -> ours
    "patch_embed.proj": "patch_embed.proj",
    "x_embedder.proj": "patch_embed.proj",
    "time_embed.emb.timestep_embedder.linear_1": "time_embed.linear_1",
    "t_embedder.mlp.0": "time_embed.linear_1",
    "time_embed.timestep_embedder.linear_1": "time_embed.linear_1",  # models with embedded guidance
    "time_embed.timestep_embedder.linear_2": "time_embed.linear_2",
    "time_embed.emb.timestep_embedder.linear_2": "time_embed.linear_2",
    "t_embedder.mlp.2": "time_embed.linear_2",
    "time_embed.linear": "modulation",
    "t_block.1": "modulation",
}
_INSIDE = {
    "attn1.qkv": "spatial_attention.qkv",  # drawn together by _fuse
    "attn.qkv": "spatial_attention.qkv",
    "attn1.to_out.0": "spatial_attention.out",
    "attn.proj": "spatial_attention.out",
    "ff.conv_inverted": "feed_forward.conv_inverted",
    "mlp.inverted_conv.conv": "feed_forward.conv_inverted",
    "ff.conv_depth": "feed_forward.conv_depth",
    "mlp.depth_conv.conv": "feed_forward.conv_depth",
    "ff.conv_point": "feed_forward.conv_point",
    "mlp.point_conv.conv": "feed_forward.conv_point",
}
_TABLE = "scale_shift_table"
_BLOCK = re.compile(r"(?:transformer_)?blocks\.(\d+)\.(.+)")
_LAYERS = ("spatial_attention", "feed_forward")  # in the order of their rows in the modulation, three each
PICKLES = (".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class WarmStart:
    """What a warm start did; every tensor of either side is in one of the lists.

    loaded: our tensors that were set. differing: our tensors whose shapes differ, as (name, file's, needed).
    missing: our tensors of the same layers that the file lacks. unused: the file's tensors that fit nothing here.
    """

    loaded: tuple[str, ...]
    differing: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report in words, names that differ in the number of the block together."""
        lines = [f"set from SANA: {', '.join(group_names(self.loaded))}"]
        shapes = sorted({(theirs, ours) for _, theirs, ours in self.differing})
        for theirs, ours in shapes:
            names = group_names(n for n, a, b in self.differing if (a, b) == (theirs, ours))
            lines.append(f"not set, the file has {list(theirs)}, needed is {list(ours)}: {', '.join(names)}")
        if self.missing:
            lines.append(f"not set, the file has none: {', '.join(group_names(self.missing))}")
        if self.unused:
            lines.append(f"of the file, not used: {', '.join(group_names(self.unused))}")
        return lines


def group_names(names: Iterable[str]) -> list[str]:
    """Names with numbers of blocks drawn together: blocks.0.a, blocks.1.a, blocks.2.a -> blocks.0-2.a."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?blocks\.)(\d+)(\..+)", name)
        head, tail = (match[1], match[3]) if match else (name, "")
        numbers.setdefault((head, tail), []).extend([int(match[2])] if match else [])
    grouped = []
    for (head, tail), found in numbers.items():
        runs: list[list[int]] = []
        for n in sorted(found):
            if runs and n == runs[-1][1] + 1:
                runs[-1][1] = n
            else:
                runs.append([n, n])
        grouped.append(head + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + tail)
    return grouped


def load_sana(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a SANA transformer: a .safetensors or .pth file, or the folder of a sharded one.

    Raises: CheckpointError if there is none or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{path}: holds no .safetensors file; give the transformer of a SANA model")
        return {k: v for file in files for k, v in load_tensors(file).items()}
    if path.suffix not in PICKLES:
        return load_tensors(path)
    content: Mapping[str, Any] = load_pickled_tensors(path)
    inner = content.get("state_dict")
    tensors = inner if isinstance(inner, Mapping) else content
    return {str(k): v for k, v in tensors.items() if isinstance(v, Tensor)}


def _fuse(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with one tensor for q, k and v where there are three, as in the authors' own files."""
    out = dict(tensors)
    for key in tensors:
        names = [key.replace(".to_q.", f".to_{part}.") for part in "qkv"]
        if key.endswith("attn1.to_q.weight") and all(name in tensors for name in names):
            out[key.replace("to_q", "qkv")] = torch.cat([out.pop(name) for name in names])
    return out


def from_sana(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """SANA's tensors under our names, and the names of those that have no place here. Raises: CheckpointError.

    SANA adds a table of each block to one modulation shared by all; ours has one for each block, their sum.
    """
    ours: dict[str, Tensor] = {}
    tables: dict[str, Tensor] = {}
    unused = []
    for key, tensor in _fuse(tensors).items():
        block = _BLOCK.fullmatch(key)
        layer, _, field = (block[2] if block else key).rpartition(".")
        new = (_INSIDE if block else _OUTSIDE).get(layer)
        if block and block[2] == _TABLE:
            tables[block[1]] = tensor
        elif new is not None and field in ("weight", "bias"):
            ours[f"blocks.{block[1]}.{new}.{field}" if block else f"{new}.{field}"] = tensor
        else:
            unused.append(key)
    if not any(name.startswith("blocks.") for name in ours):
        raise CheckpointError(f"not a SANA transformer; its first names are {sorted(tensors)[:5]}")
    weight, bias = (ours.pop(f"modulation.{field}", None) for field in ("weight", "bias"))
    for number, table in tables.items():
        if weight is None or bias is None or table.numel() != bias.numel():
            unused.append(f"blocks.{number}.{_TABLE}")
        else:
            ours[f"blocks.{number}.modulation.linear.weight"] = weight
            ours[f"blocks.{number}.modulation.linear.bias"] = bias + table.flatten().to(bias)
    return ours, unused


@torch.no_grad()
def warm_start(dit: LetsTalkDiT, path: str | os.PathLike[str]) -> WarmStart:
    """Set what fits of a SANA file in an initialised denoiser; see the module. Nothing is set on an error.

    Of a layer that does not fit, the rows of the modulation stay as they are, too: its gate stays closed.
    Raises: CheckpointError if the file is no SANA transformer or no attention and no Mix-FFN of it fits.
    """
    try:
        theirs, unused = from_sana(load_sana(path))
    except CheckpointError as error:
        message = str(error)
        raise CheckpointError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    state = dit.state_dict()
    pattern = re.compile(r"blocks\.\d+\.(spatial_attention|feed_forward|modulation)\.|patch_embed\.|time_embed\.")
    wanted = [name for name in state if pattern.match(name)]
    fits = {name for name in wanted if name in theirs and theirs[name].shape == state[name].shape}
    differing = [
        (name, tuple(theirs[name].shape), tuple(state[name].shape))
        for name in wanted
        if name in theirs and name not in fits
    ]
    if not any(layer in name for name in fits for layer in _LAYERS):
        named = "; ".join(f"{n} is {list(a)}, needs {list(b)}" for n, a, b in differing[:5])
        raise CheckpointError(
            f"{path}: no spatial attention and no Mix-FFN of it fits this denoiser ({named or 'no such blocks'});"
            " give a SANA transformer of the same width"
        )
    for name in sorted(fits):
        if ".modulation." not in name:
            state[name].copy_(theirs[name])
            continue
        block = name.partition(".modulation.")[0]
        rows = state[name].shape[0] // len(_LAYERS)
        for i, layer in enumerate(_LAYERS):
            own = [n for n in wanted if n.startswith(f"{block}.{layer}.")]
            if fits.issuperset(own):
                state[name][i * rows : (i + 1) * rows].copy_(theirs[name][i * rows : (i + 1) * rows])
    unused += sorted(set(theirs) - set(wanted))
    missing = [name for name in wanted if name not in theirs]
    return WarmStart(tuple(sorted(fits)), tuple(differing), tuple(missing), tuple(unused))
