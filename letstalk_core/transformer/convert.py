"""Names of the authors' checkpoints <-> ours (docs/model.md, Interchange). Only tensors move; nothing is computed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from ..configs import DiTConfig
from ..errors import CheckpointError

__all__ = ["dit_from_official", "dit_to_official"]

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
_TABLES = ("pos_embed", "long_temp_embed")  # fixed tables of the authors' files: ours are computed
_NAME = re.compile(r"(blocks\.\d+\.)?(.+)\.(weight|bias)")


def _renamed(key: str, names: Mapping[str, str], block_names: Mapping[str, str]) -> str | None:
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    block, layer, kind = match.groups()
    new = names.get(layer) if block is None else block_names.get(layer)
    return None if new is None else f"{block or ''}{new}.{kind}"
