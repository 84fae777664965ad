"""Work folders, manifests, recipes, and names of files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

from benchmarks.fuzz.checks import attempt, tolerated
from benchmarks.fuzz.model_files import bad_safetensors
from benchmarks.fuzz.mutate import HOSTILE_NAMES, bad_bytes, bad_json, bad_text, bad_value, dump_json


def make_work(rng: Random, seeds: Path, folder: Path) -> None:
    import torch

    from letstalk_core.generate.work_folder import WorkFolder
    from letstalk_core.sampling.clip import Clip

    work = WorkFolder(folder / "work")
    work.begin({"seed": 1, "size": [32, 32], "models": {"dit": "ab"}})
    for index in range(2):
        work.save(Clip(index, 4 * index, 4), torch.zeros(1, 4, 4, 2, 2))
    work.release()
    clip, run = folder / "work" / "clip-000000.safetensors", folder / "work" / "run.json"
    action = rng.randrange(8)
    if action == 0:
        clip.unlink()
        clip.symlink_to(rng.choice((folder.parent / "outside" / "victim.txt", "/dev/zero", folder, "nowhere")))
    elif action == 1:
        run.write_bytes(bad_bytes(rng, run.read_bytes()))
    elif action == 2:
        run.write_bytes(dump_json(bad_json(rng, json.loads(run.read_text()))))
    elif action == 3:
        run.unlink()
        run.symlink_to(rng.choice((folder.parent / "outside" / "victim.txt", folder, "nowhere")))
    elif action == 4:  # a link where the run writes a file of its own
        victim = folder.parent / "outside" / "victim.txt"
        name = rng.choice(("lock", "video-000000.mp4", "so_far.mp4"))
        (folder / "work" / name).unlink(missing_ok=True)
        rng.choice((os.symlink, os.link))(victim, folder / "work" / name)
    elif action == 5:
        _flip(rng, clip)
    else:
        clip.write_bytes(bad_safetensors(rng, clip.read_bytes()))


def _flip(rng: Random, path: Path) -> None:
    """One bit of a file."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def check_work(folder: Path) -> None:
    import torch

    from letstalk_core.generate.work_folder import WorkFolder
    from letstalk_core.sampling.clip import Clip

    work = WorkFolder(folder / "work")
    tolerated(work.begin, {"seed": 1, "size": [32, 32], "models": {"dit": "ab"}})
    for index in range(3):
        clip = Clip(index, 4 * index, 4)
        latents = work.load(clip)
        if latents is not None and latents.shape[1] != 4:
            raise AssertionError("latents of another length were accepted")
        work.save(clip, torch.zeros(1, 4, 4, 2, 2))
    work.remove()


def make_manifest(rng: Random, seeds: Path, folder: Path) -> None:
    lines = (seeds / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    if rng.random() < 0.3:
        data = bad_text(rng, "\n".join(lines) + "\n")
    else:
        records = [json.loads(line) for line in lines]
        place = rng.randrange(len(records))
        if rng.random() < 0.4:
            records[place][rng.choice(("id", "clip", "latents"))] = rng.choice(HOSTILE_NAMES)
        else:
            records[place] = bad_json(rng, records[place])
        data = b"".join(dump_json(r) + b"\n" for r in records)
    (folder / "manifest.jsonl").write_bytes(data)
    for kind in ("clips", "latents"):
        (folder / kind).mkdir()
        for i in range(2):
            good = (seeds / f"{kind}.safetensors").read_bytes()
            bad = rng.random() < 0.2
            (folder / kind / f"clip{i}.safetensors").write_bytes(bad_safetensors(rng, good) if bad else good)
    (folder / "link").symlink_to(folder.parent / "outside" / "victim.txt")


def check_manifest(folder: Path) -> None:
    from letstalk_research.data.clips import open_clip
    from letstalk_research.data.latents import LatentStore
    from letstalk_research.data.manifest import Manifest, append_records

    manifest = Manifest(folder)
    for record in manifest:
        for name in (record.clip, record.latents or "x"):
            inside = Path(os.path.normpath(folder / name))
            if not inside.is_relative_to(folder):
                raise AssertionError(f"{name!r} leads out of the folder")
        tolerated(lambda r: (c := open_clip(folder, r)).frames(0, 2) is c.audio(), record)
    tolerated(lambda m: LatentStore(folder, "train", min_frames=1).update(m), manifest)
    append_records(folder, manifest)


def make_recipe(rng: Random, seeds: Path, folder: Path) -> None:
    from letstalk_research.training.recipe import recipe_path

    text = recipe_path(rng.choice(("demo_dit", "demo_audio", "demo_autoencoder", "paper_dit"))).read_text("utf-8")
    if rng.random() < 0.5:
        data = bad_text(rng, text)
    else:
        lines = text.splitlines()
        places = [i for i, line in enumerate(lines) if "=" in line]
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.choice(places)
            lines[place] = f"{lines[place].partition('=')[0]}= {toml_value(rng)}"
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
    (folder / "recipe.toml").write_bytes(data)
    override = f"{rng.choice(('loop.steps', 'optimizer.lr', 'x', 'loop.', '.a', 'model.depth'))}={toml_value(rng)}"
    (folder / "override.txt").write_text(override, encoding="utf-8", errors="replace")


def toml_value(rng: Random) -> str:
    """A TOML value nobody expects."""
    value = bad_value(rng)
    if isinstance(value, float):
        return repr(value)
    text = dump_json(value).decode("utf-8", "replace")
    return text.replace("Infinity", "inf").replace("NaN", "nan").replace("{", "[").replace("}", "]")


def check_recipe(folder: Path) -> None:
    from letstalk_core.networks.load import build_model
    from letstalk_research.training.recipe import RECIPES, load_recipe

    override = (folder / "override.txt").read_text(encoding="utf-8")
    for stage in RECIPES:
        tolerated(lambda s: load_recipe(s, folder / "recipe.toml", [override]), stage)
        recipe = attempt(lambda s: load_recipe(s, folder / "recipe.toml"), stage)
        if recipe is not None and stage != "audio":
            build_model(recipe.model, device="meta")


def make_name(rng: Random, seeds: Path, folder: Path) -> None:
    name = rng.choice(HOSTILE_NAMES)
    if rng.random() < 0.6:
        pieces = (*HOSTILE_NAMES[:14], "a", "output/letstalk", "models")
        parts = [rng.choice(pieces) for _ in range(rng.randrange(1, 4))]
        name = "/".join(parts)
    (folder / "name.json").write_bytes(dump_json(name))
    (folder / "link").symlink_to(folder.parent / "outside" / "victim.txt")
    (folder / "folder_link").symlink_to(folder.parent / "outside")


def check_name(folder: Path) -> None:
    """Names as they come from a graph or a command line: what is opened stays in the folders meant for it."""
    from benchmarks.fuzz.pack import adapters
    from letstalk_core.cli.output import check_output
    from letstalk_core.media.audio.decode import AudioSource
    from letstalk_core.media.portrait.image import load_portrait
    from letstalk_core.networks.load import load_bundle
    from letstalk_core.sampling.memory_bank import MemoryBank
    from letstalk_research.training.recipe import recipe_path

    name = json.loads((folder / "name.json").read_bytes())
    for function in (load_portrait, AudioSource, load_bundle, MemoryBank.load, recipe_path):
        tolerated(function, name)
    tolerated(lambda n: check_output(n, overwrite=False), name)
    files = adapters(folder)
    for kind in ("portrait", "speech"):
        path = attempt(lambda n, k=kind: files.resolve_input(k, n), name)
        if path is not None and not (path.is_relative_to(folder.resolve()) or "demo" in path.parts):
            raise AssertionError(f"{name!r} leads out of the input folder, to {path}")
    for kind in ("dit", "autoencoder", "audio_encoder", "face_detector"):
        tolerated(lambda n, k=kind: files.resolve_model(k, n), name)
