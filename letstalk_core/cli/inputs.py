"""What `letstalk generate` reads: the part of the picture that is animated, and the sound that the model hears."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError, FaceNotFoundError
from ..generate.detail import own_size
from ..generate.motion_source import load_motion, parse_emotion
from ..generate.settings import GenerateSettings
from ..media.audio.decode import AudioSource
from ..media.portrait.detect import KorniaFaceDetector
from ..media.portrait.find import portrait_notes
from ..media.portrait.image import load_portrait
from ..media.portrait.scene import Scene
from ..networks.load import ModelBundle
from ..sampling.motion_curves import MotionCurves
from .output import say
from .size import OWN, Size

SAME_LENGTH_S = 0.1  # by which a separated voice may be longer or shorter


def find_scene(args: argparse.Namespace, settings: GenerateSettings) -> Scene | None:
    """The picture and the part of it around its face; None with --no-crop."""
    if args.no_crop:
        if args.crop_face:
            raise ConfigError("--no-crop and --crop-face exclude each other; leave out one of them")
        if not args.quiet:
            _tell(args, portrait_notes(load_portrait(args.portrait)))
        return None

    assert settings.size is not None  # they are resolved
    detector = KorniaFaceDetector() if args.face_detector == "yunet" else None
    image = load_portrait(args.portrait)
    try:
        scene = replace(Scene.find(image, settings.size, detector), mode=settings.scaling)
    except FaceNotFoundError as error:
        raise FaceNotFoundError(
            f"{args.portrait}: {error}, or add --no-crop to animate the whole picture as it is"
        ) from None
    _tell(args, scene.notes)
    return scene


def _tell(args: argparse.Namespace, notes: list[str]) -> None:
    for note in notes:
        say(f"note: {args.portrait}: {note}", args.quiet)


def output_size(
    args: argparse.Namespace, size: Size, settings: GenerateSettings, scene: Scene | None, pastes: bool
) -> tuple[int, int] | None:
    """Height and width of frames with carry: what goes back into a picture has the pixels of the picture."""
    if size != OWN and not (pastes and size is None):
        return settings.output_size
    if scene is not None:
        return scene.own_size
    assert settings.size is not None
    return own_size(load_portrait(args.portrait), settings.size)


def motion_of(args: argparse.Namespace, settings: GenerateSettings, bundle: ModelBundle) -> MotionCurves | None:
    """How --motion and --emotion move head and eyes. Raises: ConfigError for a model that takes no movement."""
    if args.motion is None and args.emotion is None:
        return None
    if not bundle.audio_projection.config.movement:
        raise ConfigError(
            "--motion and --emotion need a model that is told movement; leave them out, or use the demo"
        )
    assert settings.fps is not None  # they are resolved
    emotion = parse_emotion(args.emotion) if args.emotion is not None else None
    return load_motion(Path(args.motion) if args.motion is not None else None, settings.fps, emotion)


def vocals_of(args: argparse.Namespace, sound: AudioSource) -> AudioSource:
    """What the model hears of a recording. Raises: ConfigError for the vocals of another one."""
    if args.vocals is None:
        if args.as_authors:
            say(
                "note: the authors separate the voice from AUDIO before the model hears it; give it as --vocals"
                " FILE, if AUDIO holds more than speech",
                args.quiet,
            )
        return sound
    vocals = AudioSource(args.vocals)
    vocals.pin()
    if abs(vocals.seconds - sound.seconds) > SAME_LENGTH_S:
        raise ConfigError(
            f"--vocals {args.vocals}: lasts {vocals.seconds:.2f} s and {args.audio} {sound.seconds:.2f} s; give"
            " the voice that was separated from this very recording"
        )
    return vocals
