"""Reading DC-AE weights whatever names they carry: LetsTalk's own file, the diffusers format, the original format.

Our parameter names are those of the diffusers format. The original format (the authors' `efficientvit` code) keeps
q, k and v in one convolution and wraps most layers once more; `original_key` is the whole map, in both directions.
Source: docs/model.md, Autoencoder.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ...errors import CheckpointError, ConfigError
from ...protocols import Device, DType
from ..checkpoint import check_keys, load_into, load_pickled_tensors, load_tensors, read_header
from ..configs import AutoencoderConfig
from ..presets import AUTOENCODER
from .dc_ae import AutoencoderDC

BLOCK_KEYS = {  # inside one block: diffusers format -> original format
    "conv1": "main.conv1.conv",
    "conv2": "main.conv2.conv",
    "norm": "main.conv2.norm",
    "attn.to_q": "context_module.main.qkv.conv",
    "attn.to_k": "context_module.main.qkv.conv",
    "attn.to_v": "context_module.main.qkv.conv",
    "attn.to_out": "context_module.main.proj.conv",
    "attn.norm_out": "context_module.main.proj.norm",
    "conv_out.conv_inverted": "local_module.main.inverted_conv.conv",
    "conv_out.conv_depth": "local_module.main.depth_conv.conv",
    "conv_out.conv_point": "local_module.main.point_conv.conv",
    "conv_out.norm": "local_module.main.point_conv.norm",
}
END_KEYS = {  # the first and last layers
    "encoder.conv_in": "encoder.project_in.conv",
    "encoder.conv_out": "encoder.project_out.main.op_list.0.conv",
    "decoder.conv_in": "decoder.project_in.main.conv",
    "decoder.norm_out": "decoder.project_out.op_list.0",
    "decoder.conv_out": "decoder.project_out.op_list.2.conv",
    "decoder.conv_out.conv": "decoder.project_out.op_list.2.conv.conv",
}
IN_BLOCK = re.compile(r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(\d+)\.(.+)")
AGGREGATION = re.compile(r"attn\.to_qkv_multiscale\.(\d+)\.proj_(in|out)")
FUSED = ".context_module.main.qkv.conv.weight"
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
OURS_ONLY = ("image_size", "latent_rgb_factors", "latent_rgb_bias")  # not in a diffusers config.json
DIFFUSERS_DEFAULTS = {  # of lists, one entry a stage, that older config.json files leave out
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
}


def detect_scheme(keys: Iterable[str]) -> str:
    """Which format these names are of: "diffusers" or "original". Raises: CheckpointError if neither."""
    keys = sorted(keys)
    for scheme, stages in (("diffusers", "encoder.down_blocks."), ("original", "encoder.stages.")):
        if any(key.startswith(stages) for key in keys):
            return scheme
    raise CheckpointError(
        f"not a DC-AE: no tensor is named encoder.down_blocks… or encoder.stages…; the first are {keys[:5]}"
    )


def original_key(key: str, config: AutoencoderConfig) -> str:
    """The name in the original format of a parameter of ours; q, k and v share one. Raises: CheckpointError."""
    layer, _, field = key.rpartition(".")
    unshuffle = config.downsample_block_type == "pixel_unshuffle"
    block = IN_BLOCK.fullmatch(layer)
    if block:
        side, stage, index, inner = block.groups()
        aggregation = AGGREGATION.fullmatch(inner)
        if aggregation:
            name: str | None = f"context_module.main.aggreg.{aggregation[1]}.{int(aggregation[2] == 'out')}"
        elif inner == "conv":  # of a down or up block; only the strided convolution is not wrapped twice
            name = "main.conv" if side == "encoder.down" and not unshuffle else "main.conv.conv"
        else:
            name = BLOCK_KEYS.get(inner)
        if name is not None:
            return f"{side.split('.')[0]}.stages.{stage}.op_list.{index}.{name}.{field}"
    elif layer == "encoder.conv_in.conv":
        return f"encoder.project_in.conv{'.conv' if unshuffle else ''}.{field}"
    elif layer in END_KEYS:
        return f"{END_KEYS[layer]}.{field}"
    raise CheckpointError(f"tensor {key!r} does not belong to a DC-AE")


def to_original(tensors: Mapping[str, Tensor], config: AutoencoderConfig) -> dict[str, Tensor]:
    """Our tensors under the names and shapes of the original format. Raises: CheckpointError."""
    out: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = original_key(key, config)
        if name.endswith(FUSED):
            if key.endswith("to_q.weight"):
                parts = [tensors[key.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
                out[name] = rearrange(torch.cat(parts), "o i -> o i 1 1")
        else:
            out[name] = rearrange(tensor, "o i -> o i 1 1") if key.endswith("attn.to_out.weight") else tensor
    return out


def from_original(
    tensors: Mapping[str, Tensor], config: AutoencoderConfig, path: Any = "weights"
) -> dict[str, Tensor]:
    """Tensors of the original format under our names. Raises: CheckpointError naming missing or foreign ones."""
    expected = _expected(config)
    needed = to_original(expected, config)
    check_keys(path, _with_counters(tensors, needed), needed)
    out: dict[str, Tensor] = {}
    for key, ours in expected.items():
        name = original_key(key, config)
        tensor = tensors.get(name, torch.zeros((), dtype=torch.long))  # only a counter can be missing by now
        if name.endswith(FUSED):
            tensor = tensor.chunk(3)["qkv".index(key[-len("q.weight")])]
        out[key] = tensor.reshape(ours.shape).contiguous()
    return out


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a training checkpoint: outer "state_dict" and prefixes such as "module." removed."""
    for _ in range(8):  # a checkpoint may hold itself
        inner = [checkpoint[k] for k in ("state_dict", "model") if isinstance(checkpoint.get(k), Mapping)]
        if not inner:
            break
        checkpoint = inner[0]
    tensors = {k: v for k, v in checkpoint.items() if isinstance(k, str) and isinstance(v, Tensor)}
    for prefix in ("state_dict.", "module.", "model.", "autoencoder.", "vae."):
        if tensors and all(k.startswith(prefix) for k in tensors):
            tensors = {k[len(prefix) :]: v for k, v in tensors.items()}
    return tensors


def config_from_diffusers(values: Mapping[str, Any]) -> AutoencoderConfig:
    """The config of a diffusers `config.json`. Raises: ConfigError for unknown, missing or bad fields."""
    fields = {**DIFFUSERS_DEFAULTS, **{k: v for k, v in values.items() if not k.startswith("_")}}
    try:
        stages = len(fields["encoder_block_out_channels"])
    except (KeyError, TypeError):
        raise ConfigError("no list encoder_block_out_channels: not the config.json of a DC-AE") from None
    for name in DIFFUSERS_DEFAULTS:  # a single name stands for all stages
        if isinstance(fields[name], str):
            fields[name] = (fields[name],) * stages
    return AutoencoderConfig.from_dict(fields)


def config_to_diffusers(config: AutoencoderConfig) -> dict[str, Any]:
    """What to write into a diffusers `config.json`."""
    fields = {k: v for k, v in config.to_dict().items() if k not in OURS_ONLY}
    return {"_class_name": "AutoencoderDC", **fields}


def infer_config(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> AutoencoderConfig:
    """The config of weights that do not carry one.

    Order: a `config.json` beside the file; else the public models whose tensors have exactly these names and
    shapes. Where several do and differ (the scale of `in` and `mix` cannot be seen in weights), the name of the
    file or of its folders decides; without one this refuses to guess. Raises: CheckpointError.
    """
    path = Path(path)
    beside = path.with_name("config.json")
    if beside.is_file():
        try:
            values = json.loads(beside.read_text(encoding="utf-8"))
            name = str(values.get("model_name", "")).removeprefix("dc-ae-")  # what the original repositories hold
            return AUTOENCODER[name] if name in AUTOENCODER else config_from_diffusers(values)
        except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError, ConfigError) as error:
            raise CheckpointError(f"{beside}: no config of a DC-AE ({error}); correct or remove it") from None
    scheme = detect_scheme(tensors)
    fitting = {name: config for name, config in AUTOENCODER.items() if _fits(tensors, config, scheme)}
    if not fitting:
        raise CheckpointError(
            f"{path}: its tensors fit none of {', '.join(AUTOENCODER)}; put the model's config.json beside it"
        )
    configs = list(fitting.values())
    if any(config != configs[0] for config in configs):
        configs = [config for name, config in fitting.items() if name in str(path.absolute()).lower()]
        if len(configs) != 1:
            raise CheckpointError(
                f"{path}: may be {' or '.join(fitting)}, which differ in scale only; put the model's config.json"
                " beside it, or its name into the file name"
            )
    return configs[0]


def read_autoencoder(path: str | os.PathLike[str]) -> tuple[AutoencoderConfig, dict[str, Tensor]]:
    """Config and tensors, under our names, of a file in any format, or of a folder that holds one file of weights.

    .pt and .ckpt files are read without running what is pickled in them. Raises: CheckpointError.
    """
    path = _weights_file(Path(path))
    if path.suffix in PICKLES:
        tensors = unwrap(load_pickled_tensors(path))
    else:
        header = read_header(path)
        if header.parts:
            name, config = header.part(AutoencoderConfig.kind)
            tensors = load_tensors(path, prefix=f"{name}.")
            check_keys(path, tensors, _expected(config))
            return config, tensors
        tensors = unwrap(load_tensors(path))
    try:
        scheme = detect_scheme(tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    config = infer_config(path, tensors)
    if scheme == "original":
        return config, from_original(tensors, config, path)
    expected = _expected(config)
    tensors = _with_counters(tensors, expected)
    check_keys(path, tensors, expected)
    return config, tensors


def load_autoencoder(
    path: str | os.PathLike[str], *, operations: Any = nn, device: Device = None, dtype: DType = None
) -> AutoencoderDC:
    """An autoencoder from a file in any format, ready for inference. Raises: CheckpointError."""
    config, tensors = read_autoencoder(path)
    model = AutoencoderDC(config, operations=operations, device=device, dtype=dtype)
    load_into(model, tensors, path)
    return model.eval().requires_grad_(False)


@functools.lru_cache(maxsize=16)
def _expected(config: AutoencoderConfig) -> Mapping[str, Tensor]:
    """Names and shapes of a model's tensors, without memory for them. Raises: CheckpointError."""
    try:
        return dict(AutoencoderDC(config, device="meta").state_dict())
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:  # of torch's layers
        raise CheckpointError(f"autoencoder config: its layers cannot be made ({error})") from None


def _with_counters(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch counters of batch norms, which some files leave out and nothing here reads."""
    counters = {k: torch.zeros((), dtype=torch.long) for k in expected if k.endswith("num_batches_tracked")}
    return {**counters, **tensors}


def _fits(tensors: Mapping[str, Tensor], config: AutoencoderConfig, scheme: str) -> bool:
    expected = _expected(config)
    if scheme == "original":
        expected = to_original(expected, config)
    found = _with_counters(tensors, expected)
    return found.keys() == expected.keys() and all(found[k].shape == v.shape for k, v in expected.items())


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise CheckpointError(f"{path}: holds {len(found)} .safetensors files, not one; give the path of the file")
    return found[0]
