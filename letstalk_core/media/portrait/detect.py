"""Finding the face in a picture, by kornia's YuNet detector or any other `FaceDetector`. Optional: a crop by hand,
or a portrait that already fills the frame, needs none of this."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...errors import CheckpointError, DependencyError, FaceNotFoundError, first_line
from ...networks.checkpoint import load_pickled_tensors, load_tensors
from ...protocols import Device
from .crop import check_image, resize

WEIGHTS_URL = "https://github.com/kornia/data/raw/main/yunet_final.pth"
DETECTION_SIDE = 640  # pixels; YuNet was trained at 320 and finds faces down to about 10 pixels
GRID = 64  # its coarsest step

_lock = threading.Lock()


class KorniaFaceDetector:
    """A `FaceDetector` on kornia's YuNet. Nothing is ever downloaded here.

    `weights` is a .pth or .safetensors file; without it the file is looked for in torch's model cache.
    Raises: DependencyError if kornia or the file is missing, CheckpointError if the file does not fit.
    """

    def __init__(
        self, weights: str | os.PathLike[str] | None = None, confidence: float = 0.5, device: Device = None
    ) -> None:
        path = Path(weights) if weights is not None else cached_weights()
        if not path.is_file():
            raise DependencyError(
                f"{path}: no face detector weights; download {WEIGHTS_URL} to this place, or give"
                " the face box yourself"
            )
        self.device = torch.device(device if device is not None else "cpu")
        self._detector = _build(confidence)
        _load(self._detector.model, path)
        self._detector.to(self.device).eval()

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """(h, w, 3) uint8 RGB -> boxes (n, 5) float32: x0, y0, x1, y1, confidence; the surest first."""
        check_image(image)
        height, width = image.shape[:2]
        scale = min(1.0, DETECTION_SIDE / max(height, width))
        small = resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
        x = rearrange(small, "h w c -> 1 c h w").float().to(self.device)
        x = F.pad(x, (0, -x.shape[-1] % GRID, 0, -x.shape[-2] % GRID))
        found = self._detector(x)[0].float().cpu()
        boxes = found[:, :4] * torch.tensor([width / small.shape[1], height / small.shape[0]]).repeat(2)
        limits = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        return torch.cat([boxes, found[:, 14:15]], dim=1)


def largest_face(boxes: Tensor, confidence: float = 0.5) -> Tensor:
    """The face to animate among boxes (n, 5): the largest that is sure enough. Raises: FaceNotFoundError."""
    if boxes.ndim != 2 or boxes.shape[-1] != 5:
        raise FaceNotFoundError(f"the face detector gave boxes of shape {list(boxes.shape)}; needs (n, 5)")
    sure = boxes[(boxes[:, 4] >= confidence) & torch.isfinite(boxes).all(1)]
    area = (sure[:, 2] - sure[:, 0]).clamp(min=0) * (sure[:, 3] - sure[:, 1]).clamp(min=0)
    if len(sure) == 0 or area.max() <= 0:
        best = f"; the best of {len(boxes)} is {boxes[:, 4].max():.2f} sure" if len(boxes) else ""
        raise FaceNotFoundError(
            f"no face is at least {confidence:g} sure{best}; crop by hand or use another picture"
        )
    return sure[area.argmax()]


def cached_weights() -> Path:
    """Where torch's model cache would hold the weights; the file need not exist."""
    return Path(torch.hub.get_dir()) / "checkpoints" / "yunet_final.pth"


def _build(confidence: float) -> Any:
    try:
        from kornia.contrib import face_detection
    except ImportError as error:
        raise DependencyError(f"the face detector needs kornia ({error}); pip install kornia") from None
    # kornia's constructor always downloads; while it runs, it gets a network without weights instead.
    module: Any = face_detection
    with _lock:
        network = module.YuNet
        module.YuNet = lambda phase, pretrained: network(phase, pretrained=False)
        try:
            return module.FaceDetector(confidence_threshold=confidence)
        finally:
            module.YuNet = network


def _load(network: Any, path: Path) -> None:
    try:
        load = load_tensors if path.suffix == ".safetensors" else load_pickled_tensors
        network.load_state_dict(load(path))
    except (CheckpointError, RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: is not a YuNet file ({first_line(error)}); download {WEIGHTS_URL}"
        ) from None
