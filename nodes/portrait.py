"""The face out of a picture or video of any size, and the animated face back into it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..letstalk_core.errors import ConfigError
from .adapters.images import FACE_CHOICES, crop_pictures, paste_frames, paste_video
from .adapters.schema import BoundingBox, Crop, make_schema
from .adapters.widgets import widget

CATEGORY = "LetsTalk/portrait"


class LetsTalkCropPortrait(io.ComfyNode):
    """IMAGE -> the face at the size of the video, and what Paste Back needs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkCropPortrait",
            display_name="LetsTalk Crop Portrait",
            category=CATEGORY,
            description="Cuts the face out of a picture or video of any size, ready to be animated. LetsTalk Paste"
            " Back puts the result back.",
            search_aliases=["face crop", "portrait crop"],
            inputs=[
                io.Image.Input(
                    "image", tooltip="A picture, or the frames of a video, of any size and shape (4K too)."
                ),
                io.Combo.Input(
                    "face",
                    options=FACE_CHOICES,
                    default=FACE_CHOICES[0],
                    tooltip="Where the face is. auto: the mask if wired and not empty, else the bbox if wired,"
                    " else found by the pack itself. detector: YuNet, whose weights are a download of their own."
                    " whole picture: the largest middle part, for pictures that are portraits already.",
                ),
                widget("width", "Width of the crop in pixels: as the model animates it (demo model: 256)."),
                widget("height", "Height of the crop in pixels: as the model animates it (demo model: 256)."),
                widget(
                    "margin",
                    "Room around the face on each side, as a part of the longer side of its box. More"
                    " shows more hair and shoulders and makes the face smaller.",
                ),
                widget(
                    "raise_by",
                    "Moves the crop up, as a part of the longer side of the face box: hair needs more room"
                    " than the chin.",
                ),
                widget(
                    "smoothing",
                    "Videos only: frames over which the place of the face is averaged, before and after"
                    " alike, so that it neither shakes nor lags. 0: off.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Marks the face: the box around everything above 0.5. One mask, or one for each frame;"
                    " frames with an empty mask pass through.",
                ),
                BoundingBox.Input(
                    "bbox",
                    optional=True,
                    tooltip="Face box (x, y, width, height) in pixels, as face detection packs give it: one, or"
                    " one for each frame.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The face, width x height pixels."),
                Crop.Output(display_name="crop", tooltip="The way back, for LetsTalk Paste Back."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where the crop lies in the whole picture, with soft edges."
                ),
            ],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        return io.NodeOutput(*crop_pictures(**inputs))


class LetsTalkPasteBack(io.ComfyNode):
    """The animated crop -> the whole picture with the face moving in it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkPasteBack",
            display_name="LetsTalk Paste Back",
            category=CATEGORY,
            description="Puts the animated face back into the whole picture, or into each frame of the video that"
            " was cropped. Wire either frames or video.",
            search_aliases=["uncrop", "face paste"],
            inputs=[
                Crop.Input("crop", tooltip="From LetsTalk Crop Portrait. Frames without a face stay as they are."),
                widget(
                    "feather", "Width of the soft edge, as a part of the shorter side of the crop. 0: a hard edge."
                ),
                io.Boolean.Input(
                    "match_colour",
                    default=True,
                    tooltip="Shifts the colours of the animated face, the same in all frames, so that its border"
                    " looks like the picture there.",
                ),
                io.Image.Input(
                    "frames",
                    optional=True,
                    tooltip="Animated frames of the crop at any scale, upscaled or restored ones too. Gives IMAGE;"
                    " all frames are held in memory.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="Animated video of the crop. Gives VIDEO with the same sound, made frame by frame in"
                    " constant memory; IMAGE is its last frame.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Another background instead of the cropped picture: the same picture retouched or"
                    " upscaled, or one for each frame.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="All whole frames; from video they are read only where this is wired.",
                ),
                io.Video.Output(display_name="video", tooltip="The whole video with sound (from video only)."),
            ],
        )

    @classmethod
    def execute(cls, frames: Any = None, video: Any = None, **inputs: Any) -> io.NodeOutput:
        if (frames is None) == (video is None):
            both = "nothing is wired to either" if frames is None else "both are wired"
            raise ConfigError(f"frames, video: {both}; wire exactly one of them")
        if frames is not None:
            return io.NodeOutput(*paste_frames(frames=frames, **inputs))
        return io.NodeOutput(*paste_video(video=video, **inputs))
