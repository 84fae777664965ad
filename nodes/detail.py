"""The portrait's own detail, for graphs that decode with native nodes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .adapters.carry import SIZES, carry_frames
from .adapters.schema import make_schema


class LetsTalkCarryDetail(io.ComfyNode):
    """Decoded frames and their portrait -> frames with its detail."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkCarryDetail",
            display_name="LetsTalk Carry Detail",
            category="LetsTalk/portrait",
            description="Brings the portrait's own skin, hair, clothes and background into decoded frames, moved"
            " along with them, at the size of the frames or larger. LetsTalk Talking Video does this by itself.",
            search_aliases=["detail", "sharpen", "restore", "upscale"],
            inputs=[
                io.Image.Input("frames", tooltip="Frames as VAE Decode gives them, not upscaled yet."),
                io.Image.Input(
                    "portrait",
                    tooltip="The picture that was animated, in the best resolution there is; of another shape, its"
                    " middle is used.",
                ),
                io.Vae.Input("vae", tooltip="Autoencoder that decoded the frames."),
                io.Combo.Input(
                    "size",
                    options=list(SIZES),
                    default=SIZES[0],
                    optional=True,
                    tooltip="Size of the result. Larger ones take their detail from the portrait itself: double"
                    " size makes 512 of 256 pixels, portrait size has the portrait's own pixels.",
                ),
            ],
            outputs=[io.Image.Output(display_name="frames", tooltip="As many frames, sharper.")],
        )

    @classmethod
    def execute(cls, frames: Any, portrait: Any, vae: Any, size: str = SIZES[0]) -> io.NodeOutput:
        return io.NodeOutput(carry_frames(frames, portrait, vae, size))
