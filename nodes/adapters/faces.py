"""Where faces are in pictures, by the best detector that this installation has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...letstalk_core.errors import FaceNotFoundError, LetsTalkError
from ...letstalk_core.files import while_unchanged
from ...letstalk_core.media.portrait.detect import KorniaFaceDetector, cached_weights
from ...letstalk_core.media.portrait.find import Face, check_face, default_finder, find_face
from ...letstalk_core.pixels import to_bytes
from .folders import list_models, resolve_model
from .progress import check_interrupt, warn

GOOD = 0.8  # confidence of a face that looks at the camera, unhidden
SEARCHED = 250  # frames; ten seconds without a good face have none

Detector = Callable[[Tensor], Tensor]


def detector_weights() -> Path | None:
    """The face detector's weights: in ComfyUI's model folders, else in torch's cache, else None."""
    names = list_models("face_detector")
    path = resolve_model("face_detector", names[0]) if names else cached_weights()
    return path if path.is_file() else None


def face_detector() -> Detector | None:
    """Finds faces: (h, w, 3) uint8 -> boxes (n, 5) with confidence. None where there are no weights for it."""
    path = detector_weights()
    return None if path is None else _detector(path)


@while_unchanged(1)
def _detector(path: Path) -> KorniaFaceDetector:
    with torch.inference_mode(False):
        return KorniaFaceDetector(path)


def usable_face(image: Tensor) -> Face:
    """The main face of (h, w, 3) uint8, by the networks of the pack. Raises: FaceNotFoundError with the reason."""
    try:
        face = find_face(image.cpu(), default_finder())
        notes = check_face(face)
    except FaceNotFoundError as error:
        raise FaceNotFoundError(
            f"image: {error}, mark the face with a MASK or a BBOX, or set face to 'whole picture'"
        ) from None
    for note in notes:
        warn(f"image: {note}")
    return face


def good_frame(images: Tensor) -> int:
    """The first of IMAGE (n, h, w, 3) with a good face, else the one with the surest."""
    if len(images) == 1:
        return 0
    try:
        detector = face_detector() or default_finder()
    except LetsTalkError:  # no kornia, or weights that do not fit; where they are needed, this is an error
        detector = default_finder()
    best, chosen = 0.0, 0
    for number, image in enumerate(images[:SEARCHED]):
        check_interrupt()
        found = detector(to_bytes(image).cpu())
        confidence = float(found[:, 4].max()) if len(found) else 0.0
        if confidence >= GOOD:
            return number
        if confidence > best:
            best, chosen = confidence, number
    return chosen
