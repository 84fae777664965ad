"""Model folders, on the stand-in for ComfyUI's folder_paths; and the stand-in against the real thing."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]


def signatures(source: str) -> dict[str, list[str]]:
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {node.name: [argument.arg for argument in node.args.args] for node in functions}


def test_only_safetensors_of_models_letstalk_are_listed(folder_paths: ModuleType, folders: ModuleType) -> None:
    models = Path(folder_paths.models_dir) / "letstalk" / "demo"
    models.mkdir(parents=True)
    for name in ("dit.safetensors", "notes.txt"):
        (models / name).touch()
    folders.register_folders()
    assert folder_paths.get_filename_list("letstalk") == [str(Path("demo", "dit.safetensors"))]


def test_registering_twice_keeps_folders_and_extensions_of_the_user(
    folder_paths: ModuleType, folders: ModuleType
) -> None:
    folder_paths.folder_names_and_paths["letstalk"] = (["/models/mine"], {".gguf"})
    folders.register_folders()
    folders.register_folders()
    paths, extensions = folder_paths.folder_names_and_paths["letstalk"]
    assert paths == [str(Path(folder_paths.models_dir) / "letstalk"), "/models/mine"]
    assert extensions == {".gguf", ".safetensors", ".sft"}


@pytest.fixture
def models(folder_paths: ModuleType, folders: ModuleType) -> Path:
    """A models folder as ComfyUI knows it, empty."""
    root = Path(folder_paths.models_dir)
    for name in ("letstalk", "diffusion_models", "vae", "audio_encoders"):
        (root / name).mkdir(parents=True)
        folder_paths.folder_names_and_paths[name] = ([str(root / name)], {".safetensors", ".sft"})
    folders.register_folders()
    return root


def write_model(path: Path, kind: str = "", key: str = "weight") -> None:
    """A model file of a kind with a LetsTalk header, or a public one without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    config = json.loads('{"hidden_size": 32, "depth": 1, "num_heads": 1}')
    header = {"letstalk.version": "1", "letstalk.parts": json.dumps({kind: {"kind": kind, "config": config}})}
    save_file({key: torch.zeros(1)}, path, metadata=header if kind else None)


def test_the_bundled_model_comes_first_and_is_there(folders: ModuleType, models: Path) -> None:
    for kind in ("dit", "autoencoder", "audio_encoder"):
        assert folders.list_models(kind) == [folders.DEMO_NAME]
        assert folders.resolve_model(kind, folders.DEMO_NAME).is_file()
        in_old_workflows = folders.resolve_model(kind, "demo (bundled, drawn faces)")
        assert in_old_workflows == folders.resolve_model(kind, folders.DEMO_NAME)
    assert folders.resolve_bundle("demo (bundled, drawn faces)") == folders.resolve_bundle(folders.DEMO_NAME)


def test_models_are_listed_by_what_is_in_them(folders: ModuleType, models: Path) -> None:
    write_model(models / "letstalk" / "mine" / "dit.safetensors", "dit")
    write_model(models / "diffusion_models" / "mine.safetensors", "dit")
    write_model(models / "diffusion_models" / "flux.safetensors", key="double_blocks.0.img_attn.qkv.weight")
    write_model(models / "vae" / "dc-ae.safetensors", key="encoder.down_blocks.0.0.conv1.weight")
    write_model(models / "vae" / "original.safetensors", key="encoder.stages.0.op_list.0.main.conv1.conv.weight")
    write_model(models / "vae" / "kl.safetensors", key="encoder.down_blocks.0.resnets.0.conv1.weight")
    write_model(
        models / "audio_encoders" / "w2v.safetensors", key="wav2vec2.feature_extractor.conv_layers.0.conv.weight"
    )
    write_model(models / "audio_encoders" / "whisper.safetensors", key="model.encoder.conv1.weight")
    (models / "vae" / "damaged.safetensors").write_bytes(b"x" * 100)
    assert folders.list_models("dit")[1:] == [str(Path("mine", "dit.safetensors")), "mine.safetensors"]
    assert folders.list_models("autoencoder")[1:] == ["dc-ae.safetensors", "original.safetensors"]
    assert folders.list_models("audio_encoder")[1:] == ["w2v.safetensors"]


def test_models_of_others_are_told_apart_without_parsing(
    folders: ModuleType, models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(models / "diffusion_models" / "flux.safetensors", key="double_blocks.0.img_attn.qkv.weight")
    write_model(models / "diffusion_models" / "mine.safetensors", "dit")
    (models / "diffusion_models" / "damaged.safetensors").write_bytes(b"x" * 100)
    write_model(models / "vae" / "kl.safetensors", key="encoder.down.0.block.0.conv1.weight")
    parsed = []

    def read_header(path: Path) -> object:
        parsed.append(path.name)
        return read(path)

    read = folders.read_header
    monkeypatch.setattr(folders, "read_header", read_header)
    for _ in range(2):
        assert folders.list_models("dit")[1:] == ["mine.safetensors"]
        assert folders.list_models("autoencoder")[1:] == []
    assert sorted(parsed) == ["damaged.safetensors", "mine.safetensors"]
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_no_more_than_a_header_is_read(folders: ModuleType, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models / "vae" / "large.safetensors"
    save_file({"encoder.conv_in.weight": torch.zeros(1 << 20)}, path)
    read = []

    class Counted(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            found = super().read(size)
            read.append(len(found))
            return found

    monkeypatch.setattr(type(path), "open", lambda self, mode: Counted(self, mode))
    assert folders.list_models("autoencoder")[1:] == []
    assert 8 < sum(read) < 200

    read.clear()
    header = b'{"__metadata__":{"letstalk.version":"1"' + b" " * folders.MAX_HEADER_BYTES
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert folders.list_models("autoencoder")[1:] == []
    assert sum(read) == 8


@pytest.mark.parametrize("content", [b"", b"x" * 100, (9).to_bytes(8, "little") + b"not JSON."])
def test_an_unreadable_file_of_models_letstalk_is_told(
    content: bytes, folders: ModuleType, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (models / "letstalk" / "damaged.safetensors").write_bytes(content)
    assert folders.list_models("dit")[1:] == []
    assert [r.levelname for r in caplog.records] == ["WARNING"] and "damaged.safetensors" in caplog.text


def test_two_files_of_one_name_can_both_be_chosen(folders: ModuleType, models: Path) -> None:
    write_model(models / "letstalk" / "a.safetensors", "dit")
    write_model(models / "diffusion_models" / "a.safetensors", "dit")
    assert folders.list_models("dit")[1:] == ["a.safetensors", "a.safetensors [diffusion_models]"]
    found = [folders.resolve_model("dit", name).parent.name for name in folders.list_models("dit")[1:]]
    assert found == ["letstalk", "diffusion_models"]


def test_a_file_that_is_replaced_is_read_again(folders: ModuleType, models: Path) -> None:
    path = models / "letstalk" / "a.safetensors"
    write_model(path)
    assert folders.list_models("dit")[1:] == []
    write_model(path, "dit")
    assert folders.list_models("dit")[1:] == ["a.safetensors"]


def test_the_face_detector_is_found_as_it_is_published(folders: ModuleType, models: Path) -> None:
    (models / "letstalk" / "yunet_final.pth").touch()
    (models / "letstalk" / "other.pth").touch()
    assert folders.list_models("face_detector") == ["yunet_final.pth"]


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "", "no.safetensors"])
def test_a_model_name_that_was_not_listed_is_refused_with_the_remedy(
    name: str, folders: ModuleType, models: Path
) -> None:
    with pytest.raises(folders.CheckpointError, match=r"models/letstalk or models/vae"):
        folders.resolve_model("autoencoder", name)


def test_pictures_and_sounds_are_listed_photographs_first(folder_paths: ModuleType, folders: ModuleType) -> None:
    uploads = Path(folder_paths.input_directory)
    (uploads / "pasted").mkdir(parents=True)
    for name in ("me.PNG", "talk.mp3", "film.mp4", "notes.txt", "pasted/image.png"):
        (uploads / name).touch()
    portraits, speech = folders.list_inputs("portrait"), folders.list_inputs("speech")
    assert portraits[0] == "eva (bundled demo portrait)" and portraits[-1] == "me.PNG"
    assert speech[0] == "hello (bundled demo speech)" and speech[-2:] == ["film.mp4", "talk.mp3"]
    assert folders.resolve_input("portrait", portraits[0]).name == "eva.jpg"
    for name in ("pasted/image.png", "pasted/image.png [input]"):
        assert folders.resolve_input("portrait", name) == (uploads / "pasted" / "image.png").resolve()


@pytest.mark.parametrize("name", ["../secret.png", "{outside}", "link.png", "", ".", "a\0b", "x" * 5000])
def test_an_input_outside_the_input_folder_is_refused(
    name: str, folder_paths: ModuleType, folders: ModuleType, tmp_path: Path
) -> None:
    uploads = Path(folder_paths.input_directory)
    uploads.mkdir()
    secret = tmp_path / "secret.png"
    secret.touch()
    (uploads / "link.png").symlink_to(secret)
    with pytest.raises(folders.MediaError, match="input folder"):
        folders.resolve_input("portrait", name.format(outside=secret))


def test_what_is_listed_can_be_loaded(folder_paths: ModuleType, folders: ModuleType, tmp_path: Path) -> None:
    """A link out of the input folder is refused when it is chosen, so it is not offered."""
    uploads = Path(folder_paths.input_directory)
    uploads.mkdir()
    (tmp_path / "outside.png").touch()
    (uploads / "a.png").touch()
    (uploads / "out.png").symlink_to(tmp_path / "outside.png")
    (uploads / "within.png").symlink_to(uploads / "a.png")
    listed = folders.list_inputs("portrait")
    assert listed[-2:] == ["a.png", "within.png"] and "out.png" not in listed
    for name in listed:
        assert folders.resolve_input("portrait", name).is_file()


def test_a_fingerprint_changes_with_the_file_and_with_one_beside_it(folders: ModuleType, tmp_path: Path) -> None:
    path, beside, seen = tmp_path / "a.safetensors", tmp_path / "config.json", []
    for file, content in ((path, "1"), (path, "22"), (beside, "{}"), (beside, "{ }")):
        file.write_text(content)
        seen.append(folders.fingerprint(path, "config.json"))
        assert folders.fingerprint(path, "config.json") == seen[-1]
    assert len(set(seen)) == 4


def test_the_stand_in_has_the_signatures_of_comfyui(comfyui: Path) -> None:
    real = signatures((comfyui / "folder_paths.py").read_text(encoding="utf-8"))
    stub = signatures((ROOT / "folder-paths-stubs/folder_paths/__init__.py").read_text(encoding="utf-8"))
    assert stub == {name: real.get(name) for name in stub}
