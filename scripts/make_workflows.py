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
from workflow_file import Link, Node, Socket, Workflow

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


def encoded(
    w: Workflow, image: Socket, speech: Node, vae: Socket, encoder: Socket, **cut: float
) -> tuple[Node, Node]:
    """A picture and a recording, for conditioning."""
    portrait = w.add("LetsTalkEncodePortrait", image=image, vae=vae)
    return portrait, w.add("LetsTalkEncodeAudio", audio=speech, audio_encoder=encoder, **cut)


def said(
    w: Workflow, image: Socket, speech: Node, vae: Socket, encoder: Socket, **cut: float
) -> tuple[Node, Node]:
    """A picture and a recording encoded and joined; gives back the encoded sound, too."""
    portrait, audio = encoded(w, image, speech, vae, encoder, **cut)
    return audio, w.add("LetsTalkConditioning", portrait=portrait, audio=audio)


def talking(w: Workflow, dit: Socket, conditioning: Node, vae: Socket, seed: int = 1, **more: Any) -> Node:
    inputs = {"model": dit, "positive": conditioning, "vae": vae, "seed": seed, **more}
    return w.add("LetsTalkTalkingVideo", wide=400, **inputs)


def in_one_go(w: Workflow, picture: Node, speech: Node, **more: Any) -> Node:
    return w.add("LetsTalkPortraitVideo", wide=400, image=picture, audio=speech, seed=1, **more)


def save(w: Workflow, video: Socket, name: str, *, column: bool = True) -> None:
    if column:
        w.column()
    w.add("SaveVideo", video=video, filename_prefix=f"letstalk/{name}")


def quickstart(w: Workflow) -> None:
    picture, speech = material(w)
    w.group("Video")
    save(w, in_one_go(w, picture, speech), "quickstart")


def step_by_step(w: Workflow) -> tuple[dict[str, Link], dict[str, Link]]:
    """Gives back what goes into the graph and what comes out, for the blueprint."""
    dit, vae, encoder = models(w)
    picture, speech = material(w, "goro (bundled demo portrait)")
    w.group("Conditioning")
    _, conditioning = said(w, picture, speech, vae, encoder)
    w.group("Video")
    talk = talking(w, dit, conditioning, vae)
    save(w, talk, "step_by_step")
    return {"image": picture[0], "audio": speech[0]}, {"video": talk["video"], "images": talk["images"]}


def long_video_memory(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "cleo (bundled demo portrait)", "long_talk (bundled demo speech)")
    w.group("Conditioning")
    portrait, audio = encoded(w, picture, speech, vae, encoder, length_seconds=15.0)
    first, second = (
        w.add("LetsTalkConditioning", title=f"From frame {n}", portrait=portrait, audio=audio, first_frame=n)
        for n in (0, 128)
    )
    w.group("Two samplers, one memory")
    settings = w.add("LetsTalkMemorySettings")
    common = {"model": dit, "vae": vae, "seed": 1, "memory_settings": settings, "wide": 360}
    begin = w.add("LetsTalkLongVideoSampler", title="Frames 0 to 127", positive=first, max_frames=128, **common)
    w.column()
    common |= {"title": "Frames 128 to the end", "memory": begin[1]}
    go_on = w.add("LetsTalkLongVideoSampler", positive=second, **common)
    w.add("LetsTalkSaveMemory", memory=go_on[1], filename_prefix="letstalk/memory")
    w.group("Video")
    latents = w.add("LatentConcat", samples1=begin, samples2=go_on, dim="t")
    images = w.add("VAEDecode", samples=latents, vae=vae)
    video = w.add("CreateVideo", images=images, fps=25.0, audio=audio["sound"])
    save(w, video, "long_video")


def native_sampler(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "dev (bundled demo portrait)")
    w.group("Conditioning")
    portrait, audio = encoded(w, picture, speech, vae, encoder)
    clip = w.add("LetsTalkConditioning", portrait=portrait, audio=audio, first_frame=25, clip_frames=16)
    w.group("One clip")
    settings = {"seed": 2, "steps": 8, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    sampled = w.add("KSampler", model=dit, positive=clip, negative=clip[1], latent_image=clip[2], **settings)
    images = w.add("VAEDecode", samples=sampled, vae=vae)
    w.group("Video")
    sound = w.add("TrimAudioDuration", audio=audio["sound"], start_index=1.0, duration=0.64)
    video = w.add("CreateVideo", images=images, fps=25.0, audio=sound)
    save(w, video, "native_sampler", column=False)


def placed(w: Workflow, title: str, whole: Node, part: Node, x: int, y: int) -> Node:
    """A mask that marks a part of a picture."""
    return w.add("MaskComposite", title=title, destination=whole, source=part, x=x, y=y, operation="add")


def crop_upscale_paste(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "studio (bundled demo scene)")
    w.group("Where the face is")
    empty = w.add("SolidMask", title="Empty mask, 1280 x 720", value=0.0, width=1280, height=720)
    box = w.add("SolidMask", title="The face's size", value=1.0, width=FACE[2], height=FACE[3])
    mask = placed(w, "The face's place", empty, box, *FACE[:2])
    crop = w.add("LetsTalkCropPortrait", image=picture, mask=mask, face="mask")
    w.group("Conditioning")
    audio, conditioning = said(w, crop, speech, vae, encoder, length_seconds=3.0)
    w.group("Animate")
    talk = talking(w, dit, conditioning, vae)
    w.group("Upscale (off: see Read me)")
    upscaler = w.add("UpscaleModelLoader", model_name="RealESRGAN_x2plus.pth", unlisted="model_name", bypass=True)
    larger = w.add("ImageUpscaleWithModel", upscale_model=upscaler, image=talk[1], bypass=True)
    w.group("Paste back", below=True)
    whole = w.add("LetsTalkPasteBack", crop=crop[1], frames=larger)
    video = w.add("CreateVideo", images=whole, fps=25.0, audio=audio["sound"])
    w.group("Video")
    save(w, video, "crop_upscale_paste", column=False)


def lora_guidance(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "bo (bundled demo portrait)")
    w.group("Conditioning")
    _, conditioning = said(w, picture, speech, vae, encoder, length_seconds=5.0)
    w.group("LoRA (off: see Read me)", below=True)
    file = {"lora_name": "my_letstalk_lora.safetensors", "unlisted": "lora_name"}
    lora = w.add("LoraLoaderModelOnly", model=dit, bypass=True, **file)
    w.group("Guidance and sampling")
    guider = w.add("LetsTalkGuider", model=lora, positive=conditioning, audio_scale=1.3, portrait_scale=1.2)
    sigmas = w.add("LetsTalkSigmas", model=lora)
    sampler = w.add("KSamplerSelect", sampler_name="euler")
    noise = w.add("RandomNoise", noise_seed=2)
    w.group("Video")
    sampling = {"guider": guider, "sampler": sampler, "sigmas": sigmas, "noise": noise}
    save(w, w.add("LetsTalkTalkingVideo", wide=400, vae=vae, **sampling), "lora_guidance")


def native_audio_encoder(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "finn (bundled demo portrait)")
    w.group("Conditioning")
    portrait = w.add("LetsTalkEncodePortrait", image=picture, vae=vae)
    native = w.add("AudioEncoderEncode", title="AudioEncoderEncode (native)", audio_encoder=encoder, audio=speech)
    audio = w.add("LetsTalkEncodeAudio", audio=speech, encoder_output=native)
    conditioning = w.add("LetsTalkConditioning", portrait=portrait, audio=audio)
    w.group("Video")
    save(w, talking(w, dit, conditioning, vae), "native_audio_encoder")


def train_lora(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    picture, speech = material(w, "imani (bundled demo portrait)")
    w.group("Clips to learn from (your video instead)")
    talk = in_one_go(w, picture, speech, max_seconds=2.0, result="face only")
    w.column()
    clips = [
        w.add("ImageFromBatch", title=f"Frames {n} to {n + 15}", image=talk[1], batch_index=n, length=16)
        for n in CLIPS
    ]
    latents = [w.add("VAEEncode", pixels=clip, vae=vae) for clip in clips]
    dataset = w.add("LatentBatch", samples1=latents[0], samples2=latents[1])
    w.group("What is said in them")
    portrait, audio = encoded(w, talk[1], speech, vae, encoder, length_seconds=2.0)
    w.column()
    first, second = (
        w.add("LetsTalkConditioning", title=f"From frame {n}", portrait=portrait, audio=audio, first_frame=n)
        for n in CLIPS
    )
    both = w.add("ConditioningCombine", conditioning_1=first, conditioning_2=second)
    w.group("Train and save")
    trained = w.add("TrainLoraNode", model=dit, latents=dataset, positive=both, steps=50)
    w.column()
    w.add("SaveLoRANode", lora=trained["lora"], prefix="loras/my_letstalk_lora", steps=trained["steps"])
    w.add("LossGraphNode", loss=trained["loss"], filename_prefix="letstalk_loss")


def two_presenters(w: Workflow) -> None:
    dit, vae, encoder = models(w)
    w.group("Two people in one picture", below=True)
    left = w.add("LetsTalkLoadPortrait", image="ada (bundled demo portrait)")
    w.column()
    right = w.add("LetsTalkLoadPortrait", image="bo (bundled demo portrait)")
    scene = w.add("ImageStitch", image1=left, image2=right)
    w.group("Where they are")
    half = w.add("SolidMask", title="Half of the picture", value=1.0, width=SIDE, height=SIDE)
    empty = w.add("SolidMask", title="The picture", value=0.0, width=2 * SIDE, height=SIDE)
    masks = [placed(w, title, empty, half, x, 0) for title, x in (("Left person", 0), ("Right person", SIDE))]
    w.group("Two recordings")
    speech = w.add("LetsTalkLoadSpeech", title="What the left one says", audio="hello (bundled demo speech)")
    reply = w.add("LetsTalkLoadSpeech", title="What the right one says", audio="hello (bundled demo speech)")
    first = w.add("TrimAudioDuration", audio=speech, duration=TURN)
    second = w.add("TrimAudioDuration", audio=reply, start_index=TURN, duration=TURN)
    w.column()
    pause = w.add("EmptyAudio", title="Silence: listening", duration=TURN, sample_rate=16_000, channels=2)
    one = w.add("AudioConcat", title="Left: speaks, listens", audio1=first, audio2=pause)
    two = w.add("AudioConcat", title="Right: listens, speaks", audio1=pause, audio2=second)
    mix = w.add("AudioMerge", title="Both, for the video", audio1=one, audio2=two, merge_method="add")
    crops, videos = [], []
    for name, mask, sound, seed in (("Left", masks[0], one, 1), ("Right", masks[1], two, 2)):
        w.group(f"{name} person")
        crop = w.add("LetsTalkCropPortrait", image=scene, mask=mask, face="mask", margin=0.0, raise_by=0.0)
        portrait, audio = encoded(w, crop, sound, vae, encoder)
        w.column()
        conditioning = w.add("LetsTalkConditioning", portrait=portrait, audio=audio)
        more = {"audio": mix} if name == "Right" else {}
        videos.append(talking(w, dit, conditioning, vae, seed, **more))
        crops.append(crop)
    w.group("Into the picture")
    whole = w.add("LetsTalkPasteBack", title="Left person", crop=crops[0][1], video=videos[0])
    both = w.add("LetsTalkPasteBack", title="Right person", crop=crops[1][1], video=videos[1], image=whole)
    save(w, both[1], "two_presenters")


def personalize(w: Workflow) -> None:
    w.group("A video of one person, who has agreed")
    video = w.add("LoadVideo", file="my_presenter.mp4", unlisted="file")
    w.group("Training, once")
    own = w.add("LetsTalkPersonalize", wide=400, video=video)
    w.group("What is said")
    speech = w.add("LetsTalkLoadSpeech", audio="hello (bundled demo speech)")
    _, conditioning = said(w, own["portrait"], speech, own["vae"], own["audio_encoder"])
    w.group("Video")
    save(w, talking(w, own["model"], conditioning, own["vae"]), "my_presenter")


def dub(w: Workflow) -> None:
    picture, speech = material(w, "jamal (bundled demo portrait)")
    w.group("A film (your video instead)")
    film = in_one_go(w, picture, speech)
    w.group("Other words")
    recording = w.add("LetsTalkLoadSpeech", title="What is said instead", audio="long_talk (bundled demo speech)")
    words = w.add("TrimAudioDuration", audio=recording, duration=6.0)
    w.column()
    save(w, w.add("LetsTalkDub", wide=400, audio=words, video=film, seed=2), "dubbed")


BLUEPRINT = "Talking Portrait, step by step"
CLIPS = (0, 16)  # first frames of the training clips
SIDE, TURN = 256, 2.0  # pixels of a bundled portrait; seconds that one of two presenters speaks
FACE = (510, 330, 260, 260)  # x, y, width, height of the face in the bundled scene, pixels
BUILDERS: list[Callable[[Workflow], Any]] = [  # in the order of the template browser
    *(quickstart, step_by_step, long_video_memory, native_sampler, crop_upscale_paste, lora_guidance),
    *(native_audio_encoder, train_lora, two_presenters, personalize, dub),
]


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
    for number, build in enumerate(BUILDERS, 1):
        name = f"{number}_{build.__name__}"
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
