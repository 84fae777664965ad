"""ComfyUI's IMAGE, MASK, BBOX and VIDEO on their way to a crop and back.

IMAGE is float (n, height, width, 3 or more) in 0..1, MASK is (n, height, width).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import InputImpl
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...letstalk_core.errors import ConfigError, DependencyError, FaceNotFoundError
from ...letstalk_core.media.portrait.boxes import boxes_of_masks, parse_boxes
from ...letstalk_core.media.portrait.crop import resize
from ...letstalk_core.media.portrait.detect import WEIGHTS_URL, cached_weights
from ...letstalk_core.media.portrait.find import default_finder
from ...letstalk_core.media.portrait.paste import PasteTrack, feather_mask
from ...letstalk_core.media.portrait.track import CropTrack, follow_face
from ...letstalk_core.pixels import from_bytes, to_bytes
from .faces import face_detector, usable_face
from .folders import FOLDER, temp_folder
from .pictures import rgb_image
from .progress import check_interrupt, watched
from .video import encoder_choice
from .video_input import lazy_frames, open_video

AUTO, DETECTOR, MASK, BBOX, WHOLE = FACE_CHOICES = ["auto", "detector", "mask", "bbox", "whole picture"]
FINDER = "finder"  # what auto does where neither mask nor bbox tells
WARN_BYTES = 8 << 30  # of one IMAGE; from here on a video file is the better way
MARGIN_OF_MEMORY = 0.9  # of the free memory that one IMAGE may take

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cropped:
    """What travels as LETSTALK_CROP: the whole pictures, and where in them the face is. Never changed."""

    pictures: Tensor  # IMAGE (n, height, width, 3)
    track: CropTrack

    @property
    def is_whole(self) -> bool:
        """Whether the crops are all of the pictures, so that nothing need be put back."""
        return all(crop.is_whole for crop in self.track.crops)


def crop_pictures(
    image: Tensor,
    face: str,
    width: int,
    height: int,
    margin: float,
    raise_by: float,
    smoothing: float = 0.0,
    mask: Tensor | None = None,
    bbox: Any = None,
) -> tuple[Tensor, Cropped, Tensor]:
    """The face of each picture as IMAGE of `width` and `height`, the way back, and the place as MASK.

    Raises: ConfigError or FaceNotFoundError; the message names the input.
    """
    image = rgb_image(image, "image")
    count, whole, size = len(image), (image.shape[1], image.shape[2]), (height, width)
    if face not in FACE_CHOICES:
        raise ConfigError(f"face: {face!r} is not one of {', '.join(FACE_CHOICES)}")
    if face == AUTO:
        face = MASK if _has_marks(mask) else BBOX if bbox is not None else FINDER
    if face == WHOLE:
        track = CropTrack.centre(whole, size, count)
    else:
        boxes = _face_boxes(image, face, mask, bbox)
        track = CropTrack.around(boxes, whole, size, margin, raise_by, smoothing)
    cropped = torch.empty(count, *size, 3, device=image.device)
    for picture, crop, result in zip(image, track.crops, cropped, strict=True):
        result.copy_(from_bytes(resize(_bytes(picture[crop.y0 : crop.y1, crop.x0 : crop.x1], "image"), size)))
    return cropped, Cropped(image, track), _places(track)


def _face_boxes(image: Tensor, face: str, mask: Tensor | None, bbox: Any) -> Tensor:
    """Boxes (n, 4) of the face in each picture, NaN where there is none; at least one. Raises: LetsTalkError."""
    count, height, width = image.shape[:3]
    if face == FINDER:
        boxes, where = _found(image), "image: no face was found in"
    elif face == DETECTOR:
        boxes, where = _detected(image), "image: the face detector finds no face in"
    elif face == MASK:
        boxes, where = _masked(mask, count, (height, width)), "mask: nothing is above 0.5 for"
    else:
        if bbox is None:
            raise ConfigError("bbox: nothing is wired, but face is 'bbox'; wire a BBOX or choose another face")
        boxes, where = _named("bbox", parse_boxes, bbox, count, (height, width)), "bbox: has no box for"
    if not boxes.isfinite().all(1).any():
        pictures = "the picture" if count == 1 else f"any of the {count} pictures"
        raise FaceNotFoundError(
            f"{where} {pictures}; mark the face with a MASK (paint it in ComfyUI's own Load Image: right click,"
            " Open in MaskEditor), wire a BBOX, or set face to 'whole picture'"
        )
    return boxes


def _has_marks(mask: Tensor | None) -> bool:
    """Loaders give an empty mask with every opaque picture; it says nothing about the face."""
    return mask is not None and bool((mask > 0.5).any())


def _masked(mask: Tensor | None, count: int, image_size: tuple[int, int]) -> Tensor:
    if mask is None:
        raise ConfigError("mask: nothing is wired, but face is 'mask'; wire a MASK or choose another face")
    boxes = _named("mask", boxes_of_masks, mask, image_size)
    if len(boxes) == 1:
        return boxes.repeat(count, 1)
    if len(boxes) != count:
        raise ConfigError(f"mask: has {len(boxes)} masks for {count} pictures; needs one, or one for each picture")
    return boxes


def _named(name: str, function: Any, *arguments: Any) -> Any:
    """A call whose errors begin with the name of the input."""
    try:
        return function(*arguments)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _found(image: Tensor) -> Tensor:
    """By the networks of the pack; the face of a single picture is checked. Raises: FaceNotFoundError."""
    if len(image) > 1:
        return _followed(image, default_finder())
    return torch.tensor([usable_face(_bytes(image[0], "image")).box], dtype=torch.float64)


def _detected(image: Tensor) -> Tensor:
    detector = face_detector()
    if detector is None:
        raise DependencyError(
            "face: there are no weights of the face detector. Wire a MASK or a BBOX of the face, or set face to"
            f" 'whole picture', or download {WEIGHTS_URL} into models/{FOLDER}/face_detector (or to"
            f" {cached_weights()})"
        )
    return _followed(image, detector)


def _followed(image: Tensor, detector: Callable[[Tensor], Tensor]) -> Tensor:
    """Boxes (n, 4) of one face through all pictures."""
    return follow_face(detector(_bytes(picture, "image").cpu()) for picture in watched(image))


def _places(track: CropTrack) -> Tensor:
    """Where the crops lie as MASK (n, height, width), with soft edges; one that stays is stored once."""

    def place(number: int) -> Tensor:
        crop, mask = track.crops[number], torch.zeros(track.image_size)
        if track.faces[number]:
            mask[crop.y0 : crop.y1, crop.x0 : crop.x1] = feather_mask(crop)
        return mask

    if len(set(zip(track.crops, track.faces, strict=True))) == 1:
        return place(0).expand(len(track), -1, -1)
    return torch.stack([place(number) for number in range(len(track))])


def paste_frames(
    crop: Any, frames: Tensor, feather: float, match_colour: bool, image: Tensor | None = None
) -> tuple[Tensor, Any]:
    """Frames of the crop back into its pictures: IMAGE (t, height, width, 3); there is no VIDEO then."""
    frames = rgb_image(frames, "frames")
    paste, pictures = _prepare(crop, image, feather, match_colour)
    _check_paste(paste, pictures, len(frames), (frames.shape[1], frames.shape[2]), "frames")
    height, width = pictures.shape[1:3]
    _check_memory(len(frames) * height * width * 3 * pictures.element_size(), len(frames), (height, width))
    whole = torch.empty(len(frames), height, width, 3, dtype=pictures.dtype, device=pictures.device)
    for index, frame in enumerate(watched(frames)):
        whole[index] = paste(index, _bytes(frame, "frames"), _picture(pictures, index))
    return whole, ExecutionBlocker(
        "LetsTalk Paste Back makes a VIDEO only from its input `video`; with `frames`, take its IMAGE to Create"
        " Video"
    )


def paste_video(
    crop: Any, video: Any, feather: float, match_colour: bool, image: Tensor | None = None, crf: int = 18
) -> tuple[Tensor, Any]:
    """A video of the crop back into its pictures, frame by frame: a VIDEO file, and its frames as IMAGE.

    The frames are read when a node uses them. The file keeps the tags of the video: what they say of how it was
    made stays true.
    """
    from ...letstalk_core.media.video.writer import VideoWriter

    paste, pictures = _prepare(crop, image, feather, match_colour)
    height, width = pictures.shape[1:3]
    source = open_video(video)
    path = temp_folder() / f"letstalk_paste_{os.getpid()}_{time.time_ns()}.mp4"
    progress = comfy.utils.ProgressBar(source.count)
    written = 0
    encoding = encoder_choice(crf)
    with VideoWriter(path, source.fps, (height, width), source.sound, source.tags, **encoding) as writer:
        for index, frame in enumerate(source.frames):
            check_interrupt()
            if index in (0, len(pictures), len(paste.track)):
                exact = source.counted and index == 0
                count = source.count if exact else index + 1
                _check_paste(paste, pictures, count, (frame.shape[0], frame.shape[1]), "video", exact)
            whole = paste(index, _bytes(frame, "video"), _bytes(_picture(pictures, index), "image"))
            writer.write(whole.cpu()[None])
            written = index + 1
            progress.update_absolute(index + 1, max(source.count, index + 1))
    if written == 0:
        raise ConfigError("video: has no frames; give a video of the crop")
    progress.update_absolute(1, 1)  # the count may have been a guess
    return lazy_frames(path, written, (height, width)), InputImpl.VideoFromFile(str(path))


def _prepare(crop: Any, image: Tensor | None, feather: float, match_colour: bool) -> tuple[PasteTrack, Tensor]:
    """What pastes, and the pictures to paste into."""
    if not isinstance(crop, Cropped):
        raise ConfigError(f"crop: is a {type(crop).__name__}; wire the crop of LetsTalk Crop Portrait")
    pictures, track = crop.pictures, crop.track
    if image is not None:
        pictures = rgb_image(image, "image")
        track = _named("image", track.resized, tuple(pictures.shape[1:3]))
    return _named("feather", PasteTrack, track, feather, match_colour), pictures


def _check_paste(
    paste: PasteTrack, pictures: Tensor, count: int, size: tuple[int, int], name: str, exact: bool = True
) -> None:
    """Raises: ConfigError if these frames, or at least so many, cannot go into these pictures."""
    _named(name, paste.check_size, size)
    for have, what in ((len(pictures), "the picture under it"), (len(paste.track), "the crop")):
        if 1 < have < count:
            raise ConfigError(
                f"{name}: has {'' if exact else 'at least '}{count} frames, but {what} only {have}; give fewer"
                " frames, or crop one still picture for all of them"
            )


def _picture(pictures: Tensor, index: int) -> Tensor:
    return pictures[index if len(pictures) > 1 else 0]


def _check_memory(needed: int, count: int, size: tuple[int, int]) -> None:
    """Raises: ConfigError if an IMAGE of this many bytes does not fit into memory; warns of a very large one."""
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    text = f"frames: {count} pictures of {size[1]}x{size[0]} take {needed / 2**30:.1f} GB of memory as one IMAGE"
    if needed > MARGIN_OF_MEMORY * free:
        raise ConfigError(
            f"{text}, and {free / 2**30:.1f} GB are free; wire `video` instead of `frames`, which works frame by"
            " frame, or give fewer frames"
        )
    if needed > WARN_BYTES:
        log.warning("LetsTalk Paste Back: %s; `video` instead of `frames` needs next to none", text)


def _bytes(image: Tensor, name: str) -> Tensor:
    """uint8 pixels. Raises: ConfigError for NaN and infinity, which would become noise."""
    if image.dtype != torch.uint8 and not bool(image.isfinite().all()):
        raise ConfigError(f"{name}: has NaN or infinite pixels; the node that made this picture failed")
    return to_bytes(image)
