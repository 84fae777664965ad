"""Public wav2vec2 models that come as one safetensors file, without the config.json of their folder."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import CheckpointError
from .audio_encoder import AudioEncoder, filled_encoder, read_wav2vec2_config, wav2vec2_keys
from .checkpoint import load_tensors
from .configs import AudioEncoderConfig

HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}  # of the public models; tensors do not show it
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
LAYER = re.compile(r"encoder\.layers\.(\d+)\.")

log = logging.getLogger(__name__)


def infer_wav2vec2_config(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> AudioEncoderConfig:
    """The shape of a public wav2vec2 model from its tensors, named as `wav2vec2_keys` names them.

    What tensors do not show follows from the public models: their strides and numbers of heads, and that models
    whose convolutions all have a layer norm also have it before their attention. Raises: CheckpointError.
    """
    try:
        kernels = [tensors[f"feature_extractor.conv_layers.{i}.conv.weight"].shape for i in range(len(KERNELS))]
        norm = "layer" if "feature_extractor.conv_layers.1.layer_norm.weight" in tensors else "group"
        positions = tensors["encoder.pos_conv_embed.conv.parametrizations.weight.original1"].shape
        intermediate = tensors["encoder.layers.0.feed_forward.intermediate_dense.weight"].shape[0]
    except KeyError as error:
        raise CheckpointError(f"{path}: is not a wav2vec2 model, it has no tensor {error}") from None
    hidden = positions[0]
    if tuple(shape[-1] for shape in kernels) != KERNELS or hidden not in HEADS:
        raise CheckpointError(
            f"{path}: no public wav2vec2 has hidden_size={hidden} with kernels {[s[-1] for s in kernels]};"
            " put the model's config.json beside the file"
        )
    return AudioEncoderConfig(
        hidden_size=hidden,
        num_hidden_layers=1 + max(int(match[1]) for match in map(LAYER.match, tensors) if match),
        num_attention_heads=HEADS[hidden],
        intermediate_size=intermediate,
        conv_dim=tuple(shape[0] for shape in kernels),
        conv_kernel=KERNELS,
        conv_stride=STRIDES,
        conv_bias="feature_extractor.conv_layers.1.conv.bias" in tensors,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        num_conv_pos_embeddings=positions[2],
        num_conv_pos_embedding_groups=hidden // positions[1],
    )


def load_wav2vec2_file(path: str | os.PathLike[str]) -> AudioEncoder:
    """A public wav2vec2 model from a safetensors file, in float32, ready for inference.

    Names may begin with `wav2vec2.`, and the weight norm of the positional convolution may have either of torch's
    two names. A config.json of a wav2vec2 model beside the file goes before what tensors show.
    Raises: CheckpointError.
    """
    path = Path(path)
    tensors = {key: value.float() for key, value in wav2vec2_keys(load_tensors(path)).items()}
    return filled_encoder(_config(path, tensors), tensors, path).eval().requires_grad_(False)


def _config(path: Path, tensors: Mapping[str, Tensor]) -> AudioEncoderConfig:
    beside = path.with_name("config.json")
    if beside.is_file():
        try:
            return read_wav2vec2_config(beside)
        except CheckpointError as error:  # a folder of many models may hold another one's
            log.warning(
                "%s: goes by its tensors, because the config.json beside it does not fit (%s)", path, error
            )
    return infer_wav2vec2_config(tensors, path)
