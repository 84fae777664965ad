"""Nodes of the memory bank: how it works, and banks in files."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..letstalk_core.sampling.memory_bank import MemoryBank
from .adapters.clip_run import BankSettings
from .adapters.memory_files import list_banks, new_bank_path, resolve_bank
from .adapters.schema import Memory, MemorySettingsType, make_schema
from .adapters.widgets import widget

CATEGORY = "LetsTalk/memory"


class LetsTalkMemorySettings(io.ComfyNode):
    """Settings of the memory bank for the samplers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkMemorySettings",
            display_name="LetsTalk Memory Settings",
            category=CATEGORY,
            description="How each clip remembers the ones before it. Without this node the model's own values"
            " hold.",
            search_aliases=["memory bank", "drift", "long video"],
            inputs=[
                widget(
                    "noise_sigma",
                    "Noise on the remembered frames, as a part of their deviation: 0 none, 0.05 little."
                    " More stops small errors from growing over many clips, and makes clips join less smoothly."
                    " -1: the model's own value.",
                ),
                io.Boolean.Input(
                    "match_statistics",
                    default=False,
                    tooltip="Give the remembered frames the brightness and contrast of the portrait, channel by"
                    " channel. Stops slow drift of colours in very long videos.",
                ),
                widget(
                    "recent_frames",
                    "Frames kept from the end of the video so far. Other numbers than the model was"
                    " trained with can harm. -1: the model's own value.",
                ),
                widget(
                    "anchor_frames",
                    "Frames that stay the same for the whole video: the portrait, then its first frames."
                    " -1: the model's own value.",
                ),
                widget(
                    "drift_level",
                    "Likeness to the portrait, 0 to 1, below which a clip is taken for drifted: the memory"
                    " is then pulled half of the way back to the portrait. The drift output of the samplers shows"
                    " what clips score. 0: never.",
                    optional=True,
                ),
            ],
            outputs=[MemorySettingsType.Output(display_name="memory_settings")],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        wanted: dict[str, Any] = {name: None if value < 0 else value for name, value in inputs.items()}
        return io.NodeOutput(BankSettings(**wanted))


class LetsTalkSaveMemory(io.ComfyNode):
    """A bank into a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkSaveMemory",
            display_name="LetsTalk Save Memory",
            category=CATEGORY,
            description="Saves the memory of a video, so that a later run can go on where it ended.",
            search_aliases=["memory bank", "save state"],
            inputs=[
                Memory.Input("memory", tooltip="Memory that a LetsTalk sampler gives out."),
                io.String.Input(
                    "filename_prefix",
                    default="letstalk/memory",
                    tooltip="Name in ComfyUI's output folder; a number and .safetensors are added. Load Memory"
                    " lists the folder letstalk.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, memory: MemoryBank, filename_prefix: str) -> io.NodeOutput:
        path = new_bank_path(filename_prefix)
        memory.save(path)
        return io.NodeOutput(ui=ui.PreviewText(f"{path}: memory of {memory.clips_written} clips"))


class LetsTalkLoadMemory(io.ComfyNode):
    """A bank from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkLoadMemory",
            display_name="LetsTalk Load Memory",
            category=CATEGORY,
            description="Loads a saved memory; connect it to a LetsTalk sampler to go on with that video.",
            search_aliases=["memory bank", "continue", "resume"],
            inputs=[
                io.Combo.Input(
                    "memory_file",
                    options=list_banks(),
                    tooltip="A memory saved in output/letstalk, or put into models/letstalk. The sampler needs the"
                    " model, autoencoder and picture size that it was made with.",
                )
            ],
            outputs=[Memory.Output(display_name="memory")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> Any:
        status = resolve_bank(inputs["memory_file"]).stat()
        return status.st_mtime_ns, status.st_size

    @classmethod
    def execute(cls, memory_file: str) -> io.NodeOutput:
        return io.NodeOutput(MemoryBank.load(resolve_bank(memory_file)))
