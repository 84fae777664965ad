"""Files that the papers' metrics are computed with: none comes along, the user gets and names them.

Only tensors are read: safetensors, or pickles with `weights_only`. TorchScript files hold code and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from letstalk_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Weights:
    """What to get for a metric. `sha256` is of the file that papers use, or its beginning; "" if not stated."""

    option: str
    file: str
    project: str
    sha256: str = ""

    @property
    def remedy(self) -> str:
        """Which file, from where, and its hash."""
        known = f"sha256 {self.sha256}" if self.sha256 else "no hash is published"
        return f"--{self.option}: {self.file} of {self.project}, {known}"


WEIGHTS: Mapping[str, Weights] = {
    w.option: w
    for w in (
        Weights("inception", "pt_inception-2015-12-05-6726825d.pth", "pytorch-fid or torch-fidelity", "6726825d"),
        Weights("i3d", "i3d_pretrained_400.pt", "VideoGPT (Kinetics-400, 16 frames of 224 px)"),
        Weights("videomae", "a folder of config.json and model.safetensors", "MCG-NJU VideoMAE"),
        Weights("arcface", "backbone.pth (IResNet 18 to 100)", "InsightFace, arcface_torch"),
        Weights(
            "syncnet",
            "syncnet_v2.model",
            "syncnet_python",
            "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
        ),
    )
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, without wrappers. Raises: CheckpointError."""
    from letstalk_core.networks.autoencoder.convert import unwrap
    from letstalk_core.networks.checkpoint import load_pickled_tensors, load_tensors

    safe = path.suffix == ".safetensors"
    tensors = unwrap(load_tensors(path) if safe else load_pickled_tensors(path))
    if not tensors:
        raise CheckpointError(f"{path}: holds no named tensors; give a state dict (.safetensors or .pt)")
    return tensors


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Fill a network for inference. Counters of batch norms, which old files lack, stay 0.

    Raises: CheckpointError.
    """
    from letstalk_core.networks.checkpoint import load_into

    counters = {k: v for k, v in module.state_dict().items() if k.endswith("num_batches_tracked")}
    load_into(module, {**counters, **tensors}, path)
    return module.eval().requires_grad_(False)
