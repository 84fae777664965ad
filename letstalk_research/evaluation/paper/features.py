"""What FID and FVD compare: features of pictures and of clips, by networks whose weights the user names."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.errors import CheckpointError, DependencyError

from .networks import I3D
from .weights import load_weights, read_weights

SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

Features = Callable[[Tensor], Tensor]


def inception(path: Path, device: str) -> Features:
    """Pictures (n, h, w, 3) uint8 -> (n, 2048): torch-fidelity's Inception-v3, with TensorFlow's resizing.

    Raises: CheckpointError, DependencyError.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise DependencyError("FID needs torch-fidelity; pip install letstalk-portrait[metrics]") from None
    # The library unpickles what it is given, so it gets our own copy of the tensors, not the file.
    copy = io.BytesIO()
    torch.save(read_weights(path), copy)
    copy.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=copy)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: is not of FID's Inception-v3 ({str(error).splitlines()[0]})") from None
    network.to(device)

    @torch.no_grad()
    def features(frames: Tensor) -> Tensor:
        found: Tensor = network(frames.movedim(-1, 1).to(device))[0]
        return found

    return features


def i3d(path: Path, device: str) -> Features:
    """Clips (n, t, h, w, 3) uint8 -> logits (n, 400). Raises: CheckpointError."""
    network = load_weights(I3D(), read_weights(path), path).to(device)

    @torch.no_grad()
    def features(clips: Tensor) -> Tensor:
        found: Tensor = network(_small(clips).movedim(2, 1).to(device) * 2 - 1)
        return found

    return features


def videomae(path: Path, device: str) -> Features:
    """Clips (n, 16, h, w, 3) uint8 -> the mean of the last hidden states (n, d). Raises: CheckpointError."""
    import transformers

    library: type = transformers.VideoMAEModel
    try:
        network = library.from_pretrained(str(path), local_files_only=True, use_safetensors=True)  # type: ignore[attr-defined]
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: is no folder of VideoMAE with config.json and model.safetensors"
            f" ({str(error).splitlines()[0]})"
        ) from None
    network.to(device).eval()
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))

    @torch.no_grad()
    def features(clips: Tensor) -> Tensor:
        found: Tensor = network(((_small(clips) - mean) / deviation).to(device)).last_hidden_state.mean(1)
        return found

    return features


def _small(clips: Tensor) -> Tensor:
    """The middle square at the size of the network: (n, t, h, w, 3) uint8 -> (n, t, 3, 224, 224), 0 to 1."""
    side = min(clips.shape[2:4])
    top, left = (clips.shape[2] - side) // 2, (clips.shape[3] - side) // 2
    x = clips[:, :, top : top + side, left : left + side].movedim(-1, 2).float() / 255
    return F.interpolate(x.flatten(0, 1), size=(SIDE, SIDE), mode="bilinear").unflatten(0, clips.shape[:2])
