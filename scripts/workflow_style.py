"""How nodes of the example workflows look: colours by role, the room they need, and what App mode shows of them.

Colours are those that the browser itself offers for nodes and groups.
"""

from __future__ import annotations

from typing import Any

PREVIEW = {  # extra height, pixels: pictures and players that nodes show
    "LetsTalkLoadPortrait": 254,
    "LetsTalkLoadSpeech": 100,
    "LetsTalkLongVideoSampler": 352,
    "LetsTalkPortraitVideo": 450,
    "LetsTalkTalkingVideo": 450,
    "LoadVideo": 260,
    "SaveVideo": 420,
}
GROWTH = {  # space below: the panel plays on while the finished video is there already
    "LetsTalkPortraitVideo": 120,
    "LetsTalkTalkingVideo": 120,
}
FOLDS_ON_CANVAS = {"LetsTalkLongVideoSampler", "LetsTalkPortraitVideo", "LetsTalkTalkingVideo"}  # with a panel
VUE_FOOTER, VUE_BUTTON, VUE_WIDGET = 22, 26, 2  # pixels that nodes have in Nodes 2.0 only

ROLES = {  # role: colours of a node's title and body, and of a group
    "models": ("#2a363b", "#3f5159", "#3f789e"),
    "material": ("#232", "#353", "#8A8"),
    "conditioning": ("#233", "#355", "#8AA"),
    "sampling": ("#323", "#535", "#a1309b"),
    "result": ("#332922", "#593930", "#b06634"),
    "note": ("#432", "#653", "#b58b2a"),
}
ROLE_OF = {
    "models": "LoadDiT LoadAutoencoder LoadAudioEncoder Personalize",
    "material": "LoadPortrait LoadSpeech LoadMemory",
    "conditioning": "CropPortrait EncodePortrait EncodeAudio Conditioning Guider Sigmas MemorySettings"
    " MotionCurves ScaleSchedule",
    "sampling": "TalkingVideo LongVideoSampler PortraitVideo Dub",
    "result": "PasteBack SaveMemory",
}
ROLE = {f"LetsTalk{kind}": role for role, kinds in ROLE_OF.items() for kind in kinds.split()}
NATIVE_ROLE_OF = {
    "models": "LoraLoaderModelOnly UpscaleModelLoader",
    "material": "LoadImage LoadAudio LoadVideo SolidMask MaskComposite EmptyAudio ImageFromBatch AudioConcat",
    "conditioning": "AudioEncoderEncode KSamplerSelect RandomNoise VAEEncode LatentBatch ConditioningCombine",
    "sampling": "KSampler TrainLoraNode",
    "result": "SaveVideo CreateVideo VAEDecode LatentConcat ImageUpscaleWithModel TrimAudioDuration ImageStitch"
    " AudioMerge LossGraphNode SaveLoRANode",
    "note": "MarkdownNote",
}
ROLE |= {kind: role for role, kinds in NATIVE_ROLE_OF.items() for kind in kinds.split()}

LOADER_PANEL = "letstalk_preview"  # the widget of js/loader.js: upload, drop, and a look at what is chosen
APP_INPUTS = {  # what App mode asks for: widgets of these nodes
    "LetsTalkLoadPortrait": (LOADER_PANEL, "image"),
    "LetsTalkLoadSpeech": (LOADER_PANEL, "audio"),
    "LoadImage": ("image",),
    "LoadAudio": ("audio",),
    "LetsTalkPortraitVideo": ("seed",),
    "LetsTalkTalkingVideo": ("seed",),
}
APP_OUTPUTS = {"SaveVideo"}


def node_colours(kind: str) -> dict[str, str]:
    """`color` and `bgcolor` of a saved node; nothing for a node without a role here."""
    if kind not in ROLE:
        return {}
    title, body, _ = ROLES[ROLE[kind]]
    return {"color": title, "bgcolor": body}


def group_colour(kinds: list[str]) -> str:
    """The colour of a group: that of the role that most of its nodes have."""
    roles = [ROLE[kind] for kind in kinds if kind in ROLE] or ["models"]
    return ROLES[max(roles, key=roles.count)][2]


def vue_room(info: dict[str, Any], widgets: int, folds: bool) -> int:
    """Pixels that a node is higher in Nodes 2.0 than on the canvas with as many widgets shown.

    `folds`: it has a button for those that are not.
    """
    badge = str(info.get("python_module", "")).startswith("custom_nodes") or info.get("experimental")
    return VUE_WIDGET * widgets + (VUE_FOOTER if badge else 0) + (VUE_BUTTON if folds else 0)
