"""Write the example workflows: `python scripts/make_workflows.py OBJECT_INFO`.

OBJECT_INFO is a running ComfyUI with this pack (default: http://127.0.0.1:8188) or a file with its `/object_info`.
Written are workflows/<name>.json, which the browser lists as templates, workflows/api/<name>.json for the server's
API, and the blueprint in subgraphs/. A test compares the files with what this script makes from the ComfyUI that
it runs on.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blueprint import blueprint
from workflow_file import Link, Node, Workflow

ROOT = Path(__file__).resolve().parent.parent
DEMO = "demo (bundled)"
ALWAYS = """\
The bundled demo model animates **photographs and drawn faces** at 256 x 256 and 25 frames per second; \
the face of a photograph is drawn from it, led by the sound. With a model of your own, choose its files in \
the loaders.

Hover over an input for its unit and effect, or open the node's help page."""


def models(w: Workflow) -> tuple[Node, Node, Node]:
    """The three loaders: denoiser, autoencoder, audio encoder."""
    w.group("Models")
    dit = w.add("LetsTalkLoadDiT", model=DEMO)
    vae = w.add("LetsTalkLoadAutoencoder", autoencoder=DEMO)
    return dit, vae, w.add("LetsTalkLoadAudioEncoder", audio_encoder=DEMO)


def material(
    w: Workflow, picture: str = "eva (bundled demo portrait)", speech: str = "hello (bundled demo speech)"
) -> tuple[Node, Node]:
    """A picture and a recording."""
    w.group("Picture and speech", below=True)
    return w.add("LetsTalkLoadPortrait", image=picture), w.add("LetsTalkLoadSpeech", audio=speech)


def said(
    w: Workflow, image: Link, speech: Node, vae: Node, encoder: Node, *, column: bool = False, **cut: float
) -> tuple[Node, Node]:
    """A picture and a recording encoded and joined; gives back the encoded sound, too."""
    portrait = w.add("LetsTalkEncodePortrait", image=image, vae=vae[0])
    audio = w.add("LetsTalkEncodeAudio", audio=speech[0], audio_encoder=encoder[0], **cut)
    if column:
        w.column()
    return audio, w.add("LetsTalkConditioning", portrait=portrait[0], audio=audio[0])


def talking(w: Workflow, dit: Link, conditioning: Node, vae: Link, seed: int = 1, **more: Any) -> Node:
    inputs = {"model": dit, "positive": conditioning[0], "vae": vae, "seed": seed, **more}
    return w.add("LetsTalkTalkingVideo", wide=400, **inputs)


def save(w: Workflow, video: Link, name: str, *, column: bool = True) -> None:
    if column:
        w.column()
    w.add("SaveVideo", video=video, filename_prefix=f"letstalk/{name}")


def quickstart(w: Workflow) -> None:
    picture, speech = material(w)
    w.group("Video")
    talk = w.add("LetsTalkPortraitVideo", wide=400, image=picture[0], audio=speech[0], seed=1)
    save(w, talk[0], "quickstart")


def step_by_step(w: Workflow) -> tuple[dict[str, Link], dict[str, Link]]:
    """Gives back what goes into the graph and what comes out, for the blueprint."""
    dit, vae, encoder = models(w)
    picture, speech = material(w, "goro (bundled demo portrait)")
    w.group("Conditioning")
    _, conditioning = said(w, picture[0], speech, vae, encoder)
    w.group("Video")
    talk = talking(w, dit[0], conditioning, vae[0])
    save(w, talk[0], "step_by_step")
    return {"image": picture[0], "audio": speech[0]}, {"video": talk["video"], "images": talk["images"]}


def long_video_memory(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "cleo (bundled demo portrait)", "long_talk (bundled demo speech)")
    w.group("Conditioning")
    portrait = w.add("LetsTalkEncodePortrait", image=picture[0], vae=vae[0])
    audio = w.add("LetsTalkEncodeAudio", audio=speech[0], audio_encoder=encoder[0], length_seconds=15.0)
    first = w.add("LetsTalkConditioning", title="From frame 0", portrait=portrait[0], audio=audio[0])
    second = w.add(
        "LetsTalkConditioning", title="From frame 128", portrait=portrait[0], audio=audio[0], first_frame=128
    )
    w.group("Two samplers, one memory")
    settings = w.add("LetsTalkMemorySettings")
    common = {"model": dit[0], "vae": vae[0], "seed": 1, "memory_settings": settings[0], "wide": 360}
    begin = w.add("LetsTalkLongVideoSampler", title="Frames 0 to 127", positive=first[0], max_frames=128, **common)
    w.column()
    go_on = w.add(
        "LetsTalkLongVideoSampler", title="Frames 128 to the end", positive=second[0], memory=begin[1], **common
    )
    w.add("LetsTalkSaveMemory", memory=go_on[1], filename_prefix="letstalk/memory")
    w.group("Video")
    latents = w.add("LatentConcat", samples1=begin[0], samples2=go_on[0], dim="t")
    images = w.add("VAEDecode", samples=latents[0], vae=vae[0])
    video = w.add("CreateVideo", images=images[0], fps=25.0, audio=audio["sound"])
    save(w, video[0], "long_video")


def native_sampler(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "dev (bundled demo portrait)")
    w.group("Conditioning")
    portrait = w.add("LetsTalkEncodePortrait", image=picture[0], vae=vae[0])
    audio = w.add("LetsTalkEncodeAudio", audio=speech[0], audio_encoder=encoder[0])
    clip = w.add("LetsTalkConditioning", portrait=portrait[0], audio=audio[0], first_frame=25, clip_frames=16)
    w.group("One clip")
    sampled = w.add(
        "KSampler",
        model=dit[0],
        positive=clip[0],
        negative=clip[1],
        latent_image=clip[2],
        seed=2,
        steps=8,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
    )
    images = w.add("VAEDecode", samples=sampled[0], vae=vae[0])
    w.group("Video")
    sound = w.add("TrimAudioDuration", audio=audio["sound"], start_index=1.0, duration=0.64)
    video = w.add("CreateVideo", images=images[0], fps=25.0, audio=sound[0])
    save(w, video[0], "native_sampler", column=False)


def crop_upscale_paste(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "studio (bundled demo scene)")
    w.group("Where the face is")
    empty = w.add("SolidMask", title="Empty mask, 1280 x 720", value=0.0, width=1280, height=720)
    box = w.add("SolidMask", title="The face's size", value=1.0, width=FACE[2], height=FACE[3])
    mask = w.add(
        "MaskComposite",
        title="The face's place",
        destination=empty[0],
        source=box[0],
        x=FACE[0],
        y=FACE[1],
        operation="add",
    )
    crop = w.add("LetsTalkCropPortrait", image=picture[0], mask=mask[0], face="mask")
    w.group("Conditioning")
    audio, conditioning = said(w, crop[0], speech, vae, encoder, length_seconds=3.0)
    w.group("Animate")
    talk = talking(w, dit[0], conditioning, vae[0])
    w.group("Upscale (off: see Read me)")
    upscaler = w.add("UpscaleModelLoader", model_name="RealESRGAN_x2plus.pth", unlisted="model_name", bypass=True)
    larger = w.add("ImageUpscaleWithModel", upscale_model=upscaler[0], image=talk[1], bypass=True)
    w.group("Paste back", below=True)
    whole = w.add("LetsTalkPasteBack", crop=crop[1], frames=larger[0])
    video = w.add("CreateVideo", images=whole[0], fps=25.0, audio=audio["sound"])
    w.group("Video")
    save(w, video[0], "crop_upscale_paste", column=False)


def lora_guidance(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "bo (bundled demo portrait)")
    w.group("Conditioning")
    _, conditioning = said(w, picture[0], speech, vae, encoder, length_seconds=5.0)
    w.group("LoRA (off: see Read me)", below=True)
    lora = w.add(
        "LoraLoaderModelOnly",
        model=dit[0],
        lora_name="my_letstalk_lora.safetensors",
        unlisted="lora_name",
        bypass=True,
    )
    w.group("Guidance and sampling")
    guider = w.add("LetsTalkGuider", model=lora[0], positive=conditioning[0], audio_scale=1.3, portrait_scale=1.2)
    sigmas = w.add("LetsTalkSigmas", model=lora[0])
    sampler = w.add("KSamplerSelect", sampler_name="euler")
    noise = w.add("RandomNoise", noise_seed=2)
    w.group("Video")
    talk = w.add(
        "LetsTalkTalkingVideo",
        wide=400,
        guider=guider[0],
        sampler=sampler[0],
        sigmas=sigmas[0],
        noise=noise[0],
        vae=vae[0],
    )
    save(w, talk[0], "lora_guidance")


def native_audio_encoder(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "finn (bundled demo portrait)")
    w.group("Conditioning")
    portrait = w.add("LetsTalkEncodePortrait", image=picture[0], vae=vae[0])
    encoded = w.add(
        "AudioEncoderEncode", title="AudioEncoderEncode (native)", audio_encoder=encoder[0], audio=speech[0]
    )
    audio = w.add("LetsTalkEncodeAudio", audio=speech[0], encoder_output=encoded[0])
    conditioning = w.add("LetsTalkConditioning", portrait=portrait[0], audio=audio[0])
    w.group("Video")
    talk = talking(w, dit[0], conditioning, vae[0])
    save(w, talk[0], "native_audio_encoder")


def train_lora(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "imani (bundled demo portrait)")
    w.group("Clips to learn from (your video instead)")
    talk = w.add(
        "LetsTalkPortraitVideo",
        wide=400,
        image=picture[0],
        audio=speech[0],
        seed=1,
        max_seconds=2.0,
        result="face only",
    )
    w.column()
    clips = [
        w.add(
            "ImageFromBatch", title=f"Frames {first} to {first + 15}", image=talk[1], batch_index=first, length=16
        )
        for first in CLIPS
    ]
    latents = [w.add("VAEEncode", pixels=clip[0], vae=vae[0]) for clip in clips]
    dataset = w.add("LatentBatch", samples1=latents[0][0], samples2=latents[1][0])
    w.group("What is said in them")
    portrait = w.add("LetsTalkEncodePortrait", image=talk[1], vae=vae[0])
    audio = w.add("LetsTalkEncodeAudio", audio=speech[0], audio_encoder=encoder[0], length_seconds=2.0)
    w.column()
    said = [
        w.add(
            "LetsTalkConditioning",
            title=f"From frame {first}",
            portrait=portrait[0],
            audio=audio[0],
            first_frame=first,
        )
        for first in CLIPS
    ]
    both = w.add("ConditioningCombine", conditioning_1=said[0][0], conditioning_2=said[1][0])
    w.group("Train and save")
    trained = w.add("TrainLoraNode", model=dit[0], latents=dataset[0], positive=both[0], steps=50)
    w.column()
    w.add("SaveLoRANode", lora=trained["lora"], prefix="loras/my_letstalk_lora", steps=trained["steps"])
    w.add("LossGraphNode", loss=trained["loss"], filename_prefix="letstalk_loss")


def two_presenters(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    w.group("Two people in one picture", below=True)
    left = w.add("LetsTalkLoadPortrait", image="ada (bundled demo portrait)")
    w.column()
    right = w.add("LetsTalkLoadPortrait", image="bo (bundled demo portrait)")
    scene = w.add("ImageStitch", image1=left[0], image2=right[0])
    w.group("Where they are")
    half = w.add("SolidMask", title="Half of the picture", value=1.0, width=SIDE, height=SIDE)
    empty = w.add("SolidMask", title="The picture", value=0.0, width=2 * SIDE, height=SIDE)
    masks = [
        w.add("MaskComposite", title=title, destination=empty[0], source=half[0], x=x, y=0, operation="add")
        for title, x in (("Left person", 0), ("Right person", SIDE))
    ]
    w.group("Two recordings")
    speech = w.add("LetsTalkLoadSpeech", title="What the left one says", audio="hello (bundled demo speech)")
    reply = w.add("LetsTalkLoadSpeech", title="What the right one says", audio="hello (bundled demo speech)")
    first = w.add("TrimAudioDuration", audio=speech[0], duration=TURN)
    second = w.add("TrimAudioDuration", audio=reply[0], start_index=TURN, duration=TURN)
    w.column()
    pause = w.add("EmptyAudio", title="Silence: listening", duration=TURN, sample_rate=16_000, channels=2)
    one = w.add("AudioConcat", title="Left: speaks, listens", audio1=first[0], audio2=pause[0])
    two = w.add("AudioConcat", title="Right: listens, speaks", audio1=pause[0], audio2=second[0])
    mix = w.add("AudioMerge", title="Both, for the video", audio1=one[0], audio2=two[0], merge_method="add")
    crops, videos = [], []
    for name, mask, sound, seed in (("Left", masks[0], one, 1), ("Right", masks[1], two, 2)):
        w.group(f"{name} person")
        crop = w.add("LetsTalkCropPortrait", image=scene[0], mask=mask[0], face="mask", margin=0.0, raise_by=0.0)
        _, conditioning = said(w, crop[0], sound, vae, encoder, column=True)
        more = {"audio": mix[0]} if name == "Right" else {}
        videos.append(talking(w, dit[0], conditioning, vae[0], seed, **more))
        crops.append(crop)
    w.group("Into the picture")
    whole = w.add("LetsTalkPasteBack", title="Left person", crop=crops[0][1], video=videos[0][0])
    both = w.add("LetsTalkPasteBack", title="Right person", crop=crops[1][1], video=videos[1][0], image=whole[0])
    save(w, both[1], "two_presenters")


def personalize(w: Workflow) -> None:
    w.group("A video of one person, who has agreed")
    video = w.add("LoadVideo", file="my_presenter.mp4", unlisted="file")
    w.group("Training, once")
    own = w.add("LetsTalkPersonalize", wide=400, video=video[0])
    w.group("What is said")
    speech = w.add("LetsTalkLoadSpeech", audio="hello (bundled demo speech)")
    portrait = w.add("LetsTalkEncodePortrait", image=own["portrait"], vae=own["vae"])
    audio = w.add("LetsTalkEncodeAudio", audio=speech[0], audio_encoder=own["audio_encoder"])
    conditioning = w.add("LetsTalkConditioning", portrait=portrait[0], audio=audio[0])
    w.group("Video")
    talk = talking(w, own["model"], conditioning, own["vae"])
    save(w, talk[0], "my_presenter")


def dub(w: Workflow) -> None:
    picture, speech = material(w, "jamal (bundled demo portrait)")
    w.group("A film (your video instead)")
    film = w.add("LetsTalkPortraitVideo", wide=400, image=picture[0], audio=speech[0], seed=1)
    w.group("Other words")
    recording = w.add("LetsTalkLoadSpeech", title="What is said instead", audio="long_talk (bundled demo speech)")
    words = w.add("TrimAudioDuration", audio=recording[0], duration=6.0)
    w.column()
    dubbed = w.add("LetsTalkDub", wide=400, audio=words[0], video=film[0], seed=2)
    save(w, dubbed[0], "dubbed")


BLUEPRINT = "Talking Portrait, step by step"
CLIPS = (0, 16)  # first frames of the training clips
SIDE, TURN = 256, 2.0  # pixels of a bundled portrait; seconds that one of two presenters speaks
FACE = (510, 330, 260, 260)  # x, y, width, height of the face in the bundled scene, pixels
WORKFLOWS: dict[str, Callable[[Workflow], Any]] = {
    "1_quickstart": quickstart,
    "2_step_by_step": step_by_step,
    "3_long_video_memory": long_video_memory,
    "4_native_sampler": native_sampler,
    "5_crop_upscale_paste": crop_upscale_paste,
    "6_lora_guidance": lora_guidance,
    "7_native_audio_encoder": native_audio_encoder,
    "8_train_lora": train_lora,
    "9_two_presenters": two_presenters,
    "10_personalize": personalize,
    "11_dub": dub,
}


def notes() -> dict[str, str]:
    """The text of each workflow's note, by the name of the workflow."""
    text = (ROOT / "scripts" / "workflow_notes.md").read_text(encoding="utf-8")
    parts = re.split(r"^# (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: part.strip() for name, part in zip(parts[::2], parts[1::2], strict=True)}


def make(object_info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """File name -> graph, for all workflows and the blueprint. Raises: WorkflowError."""
    found = re.search(r'^version = "(.+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    files = {}
    for name, build in WORKFLOWS.items():
        workflow = Workflow(object_info, found[1])
        workflow.group("About this workflow")
        workflow.note(f"{notes()[name]}\n\n{ALWAYS}")
        build(workflow)
        files[f"workflows/{name}.json"] = workflow.ui()
        files[f"workflows/api/{name}.json"] = workflow.api()
    graph = Workflow(object_info, found[1])
    files[f"subgraphs/{BLUEPRINT}.json"] = blueprint(graph, BLUEPRINT, *step_by_step(graph))
    return files


def main(source: str) -> None:
    if source.startswith("http"):
        with urllib.request.urlopen(source.rstrip("/") + "/object_info") as reply:
            object_info = json.load(reply)
    else:
        object_info = json.loads(Path(source).read_text(encoding="utf-8"))
    for name, graph in make(object_info).items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(graph, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8188")
