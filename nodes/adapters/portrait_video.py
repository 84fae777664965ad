"""A talking video out of a picture and a recording in one call: the steps that the other nodes make one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.media.portrait.find import default_finder
from ...letstalk_core.media.portrait.scene import Scene
from ...letstalk_core.pixels import to_bytes
from .audio import LetsTalkAudioEncoder, encode_audio, load_audio_encoder
from .carry import SIZES, masks_of
from .clip_run import ClipRun, prepare_run
from .conditioning import encode_portrait, make_conditioning
from .faces import good_frame, usable_face
from .folders import fingerprint, resolve_bundle
from .images import AUTO, FACE_CHOICES, WHOLE, Cropped, crop_pictures, paste_frames, paste_video
from .model import load_dit
from .pictures import rgb_image
from .render import IMAGES, TalkingVideo, render_video
from .vae import LetsTalkVAE, load_vae
from .video_input import lazy_frames

WHOLE_PICTURE, FACE = RESULTS = ["whole picture", "face only"]
FPS = 25.0
MARGIN, RAISE_BY, FEATHER = 0.6, 0.1, 0.1  # as Crop Portrait and Paste Back have them
FINE = 8  # crf of what is pasted and encoded once more


@dataclass(frozen=True)
class Bundle:
    """The models of one folder, as ComfyUI manages them."""

    model: Any
    vae: LetsTalkVAE
    audio_encoder: LetsTalkAudioEncoder

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the videos that the model was trained on."""
        config = self.model.model.dit_config
        factor = self.vae.autoencoder_config.spatial_factor * config.patch_size
        rows, columns = config.grid_size
        return rows * factor, columns * factor


@dataclass(frozen=True)
class PortraitVideo:
    """What came out: ComfyUI's VIDEO over the file at `path`, all frames and the last one as IMAGE."""

    video: Any
    path: Path
    images: Tensor
    last: Tensor


def load_bundle(name: str) -> Bundle:
    """The models of a folder; the one that was used last is kept. Raises: CheckpointError."""
    folder = resolve_bundle(name)
    files = {kind: folder / f"{kind}.safetensors" for kind in ("dit", "autoencoder", "audio_encoder")}
    return _load(*files.values(), tuple(map(fingerprint, files.values())))


@lru_cache(maxsize=1)
def _load(dit: Path, autoencoder: Path, audio_encoder: Path, state: tuple[str, ...]) -> Bundle:
    """`state` is there to notice other files of the same names."""
    return Bundle(load_dit(dit), load_vae(autoencoder), load_audio_encoder(audio_encoder))


def place_face(
    image: Tensor, face: str, mask: Tensor | None, bbox: Any, size: tuple[int, int], margin: float = MARGIN
) -> tuple[Tensor, Cropped]:
    """The face of one picture as IMAGE of `size` (height, width), and the way back into the whole picture.

    Without a mask and a box the face is found; a portrait, or a picture without a face, stays whole, and Encode
    Portrait then tells what it sees in it.
    Raises: ConfigError or FaceNotFoundError naming the input.
    """
    marked = bbox is not None or (mask is not None and bool((mask > 0.5).any()))
    if face == AUTO and not marked:
        picture = to_bytes(image[0]).cpu()
        if not default_finder().faces(picture):
            face = WHOLE
        elif usable_face(picture) and Scene.find(picture, size).is_whole:
            face = WHOLE
    found, cropped, _ = crop_pictures(image, face, size[1], size[0], margin, RAISE_BY, mask=mask, bbox=bbox)
    return found, cropped


def animate(
    bundle: Bundle,
    image: Tensor,
    audio: Any,
    *,
    sound: Any = None,
    face: str = AUTO,
    mask: Tensor | None = None,
    bbox: Any = None,
    margin: float = MARGIN,
    result: str = WHOLE_PICTURE,
    max_seconds: float = 0.0,
    movement: float = 1.0,
    seed: int = 0,
    steps: int = 0,
    audio_scale: Any = 0.0,
    crf: int = 18,
    every_frame: bool = False,
    **rendering: Any,
) -> tuple[ClipRun, PortraitVideo]:
    """The video of a picture that speaks, and the run that made it.

    audio: the speech that drives the face. sound: what the video plays instead. every_frame: give out all frames
    as they were rendered; otherwise they are read from the file when a node looks at them. rendering: more that
    `render_video` takes. Raises: LetsTalkError.
    """
    for name, value, choices in (("result", result, RESULTS), ("face", face, FACE_CHOICES)):
        if value not in choices:
            raise ConfigError(f"{name}: {value!r} is unknown; choose one of {', '.join(choices)}")
    image = rgb_image(image, "image")
    number = good_frame(image)
    picture, place = place_face(image[number : number + 1], face, mask, bbox, bundle.size, margin)
    pasted = result == WHOLE_PICTURE and not place.is_whole
    detail = SIZES[0]
    if masks_of(bundle.vae) is not None:  # what goes back into the picture has its resolution
        picture, detail = _own_crop(place), SIZES[2] if pasted else SIZES[0]
    portrait = encode_portrait(picture, bundle.vae, bundle.size[1], bundle.size[0])
    cut: dict[str, Any] = {"fps": FPS, "start_seconds": 0.0, "length_seconds": max_seconds}
    heard, _ = encode_audio(audio, bundle.audio_encoder, silence_threshold=-60.0, normalize=True, **cut)
    positive, *_ = make_conditioning(portrait, heard, 0, 1, movement)
    run = prepare_run(
        model=bundle.model,
        positive=positive,
        seed=seed,
        steps=steps,
        schedule="model",
        audio_scale=audio_scale,
        portrait_scale=1.0,
    )
    video = render_video(
        run,
        bundle.vae,
        images=IMAGES[every_frame],
        crf=min(crf, FINE) if pasted else crf,
        audio=sound,
        detail=detail,
        **rendering,
    )
    if pasted:
        return run, _paste(place, video, run.frames, every_frame, crf)
    last = video.images[-1:].clone()
    size = (last.shape[1], last.shape[2])
    images = video.images if every_frame else lazy_frames(video.path, run.frames, size)
    return run, PortraitVideo(video.video, video.path, images, last)


def _own_crop(place: Cropped) -> Tensor:
    """IMAGE of what is animated, in the pixels of the picture."""
    box = place.track.crops[0]
    return place.pictures[:1, box.y0 : box.y1, box.x0 : box.x1, :3]


def _paste(place: Cropped, video: TalkingVideo, frames: int, every_frame: bool, crf: int) -> PortraitVideo:
    """The same video with its frames in the whole picture."""
    images, whole = paste_video(place, video.video, FEATHER, match_colour=True, crf=crf)
    path = Path(whole.get_stream_source())
    video.path.unlink(missing_ok=True)
    if every_frame:
        images, _ = paste_frames(place, video.images, FEATHER, match_colour=True)
    size = (place.pictures.shape[1], place.pictures.shape[2])
    last = images[-1:].clone() if every_frame else lazy_frames(path, 1, size, first=frames - 1)
    return PortraitVideo(whole, path, images, last)
