"""Model files: they describe themselves, damage is named, and a failed write leaves nothing."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from letstalk_core.errors import CheckpointError, DependencyError, OutputError
from letstalk_core.files import atomic_path, file_sha256
from letstalk_core.networks import checkpoint
from letstalk_core.networks.presets import AUDIO_PROJECTION, DIT

PARTS = {
    "dit": (DIT["demo"], {"weight": torch.arange(6.0).reshape(2, 3).t()}),  # not contiguous, as weights may be
    "audio_projection": (AUDIO_PROJECTION["demo"], {"bias": torch.ones(4, dtype=torch.float16)}),
}
FILES_AGAIN = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "dit.safetensors"
    checkpoint.save_checkpoint(path, PARTS, {"letstalk.note": "tiny"})
    return path


def test_a_file_gives_back_configs_metadata_shapes_and_tensors(model: Path) -> None:
    header = checkpoint.read_header(model)
    assert header.parts == {"dit": DIT["demo"], "audio_projection": AUDIO_PROJECTION["demo"]}
    assert header.metadata["letstalk.note"] == "tiny"
    assert header.shapes == {"dit.weight": (3, 2), "audio_projection.bias": (4,)}
    assert header.dtypes["audio_projection.bias"] == "F16"
    torch.testing.assert_close(
        checkpoint.load_tensors(model, prefix="dit."), {"weight": PARTS["dit"][1]["weight"]}
    )
    assert file_sha256(model) == hashlib.sha256(model.read_bytes()).hexdigest()


def test_a_part_is_found_by_its_kind_and_a_missing_one_is_named(model: Path) -> None:
    header = checkpoint.read_header(model)
    assert header.part("audio_projection") == ("audio_projection", AUDIO_PROJECTION["demo"])
    with pytest.raises(CheckpointError, match=r"holds \['audio_projection', 'dit'\], not a model of kind"):
        header.part("autoencoder")


def test_a_foreign_safetensors_file_has_tensors_and_no_parts(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    header = checkpoint.read_header(tmp_path / "foreign.safetensors")
    assert header.parts == {} and header.shapes == {"a": (2,)}
    with pytest.raises(CheckpointError, match="no LetsTalk config"):
        header.part("dit")


@FILES_AGAIN
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(model: Path, data: st.DataObject) -> None:
    whole = model.read_bytes()
    size = data.draw(st.integers(0, len(whole) - 1))
    cut = model.with_name("cut.safetensors")
    cut.write_bytes(whole[:size])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        checkpoint.load_tensors(cut)


@FILES_AGAIN
@given(content=st.binary(max_size=64))
def test_bytes_that_are_no_model_never_raise_anything_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoint.read_header(path)


def with_header(header: bytes, length: int | None = None) -> bytes:
    """A file of four bytes of data behind this header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(4)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'"text"',
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": []}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}',
        b'{"__metadata__": [1]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_headers_of_the_wrong_form_are_refused(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(with_header(header))
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        checkpoint.read_header(tmp_path / "bad.safetensors")


def test_a_missing_file_a_pickle_and_an_absurd_length_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pt")
    (tmp_path / "huge.safetensors").write_bytes(with_header(b"{}", 2**63))
    cases = {
        "none.safetensors": r"none\.safetensors: no such file",
        "old.pt": r"old\.pt: not a",
        "huge.safetensors": "not a safetensors file, or cut short",
    }
    for name, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            checkpoint.read_header(tmp_path / name)


@pytest.mark.parametrize(
    ("version", "parts", "message"),
    [
        ("2", None, "format version 2, this LetsTalk reads 1"),
        ("1", None, "no valid LetsTalk config"),
        ("1", "{", "no valid LetsTalk config"),
        ("1", "[]", "no valid LetsTalk config"),
        ("1", '{"a": {"kind": "vocoder", "config": {}}}', "'vocoder'"),
        ("1", '{"a": {"kind": "dit", "config": {"depth": -1}}}', "config"),
        ("1", '{"a": {"kind": "audio_encoder", "config": {"num_attention_heads": 0}}}', "heads=0 must be > 0"),
    ],
)
def test_a_header_with_a_bad_config_is_refused(
    version: str, parts: str | None, message: str, tmp_path: Path
) -> None:
    metadata = {"letstalk.version": version, **({"letstalk.parts": parts} if parts else {})}
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read_header(tmp_path / "m.safetensors")


@FILES_AGAIN
@given(content=st.one_of(st.binary(max_size=24), st.binary(max_size=24).map(lambda b: b"\x80\x02" + b + b".")))
def test_damaged_pickles_never_raise_anything_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pt: ") as error:
        checkpoint.load_pickled_tensors(path)
    assert "\n" not in str(error.value)


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path, ("x",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.zeros(1), "extra": Harmful()}, "holds more than plain tensors"),
        ([1, 2], "holds a list, not named tensors"),
    ],
)
def test_pickles_of_anything_but_named_tensors_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    """Lint keeps every other module from `torch.load`."""
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"a\.pt: .*{message}"):
        checkpoint.load_pickled_tensors(tmp_path / "a.pt")


def test_a_torch_that_may_run_code_reads_no_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    assert checkpoint.load_pickled_tensors(tmp_path / "a.pt")["a"].sum() == 2
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    with pytest.raises(DependencyError, match=r"torch 2\.5\.1.*update torch to 2\.6"):
        checkpoint.load_pickled_tensors(tmp_path / "a.pt")


def test_the_first_five_names_and_the_count_of_what_does_not_fit_are_given() -> None:
    needed = {f"layer.{i}": torch.zeros(1) for i in range(9)}
    message = "file: 8 tensors missing: layer.1, layer.2, layer.3, layer.4, layer.5, …;"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.check_keys("file", {"layer.0": torch.zeros(1)}, needed)
    tensor = torch.zeros(2)
    with pytest.raises(CheckpointError, match="1 tensors unexpected: b;"):
        checkpoint.check_keys("file", {"a": tensor, "b": tensor}, {"a": tensor})
    with pytest.raises(CheckpointError, match=r"1 tensors of the wrong shape: a is \[2\], needs \[3\];"):
        checkpoint.check_keys("file", {"a": tensor}, {"a": torch.zeros(3)})


def test_loading_keeps_the_dtype_of_the_module_and_changes_nothing_on_a_mismatch() -> None:
    module = nn.Linear(2, 1, dtype=torch.bfloat16)
    before = module.weight.clone()
    with pytest.raises(CheckpointError, match="1 tensors missing: bias"):
        checkpoint.load_into(module, {"weight": torch.ones(1, 2)}, "file")
    torch.testing.assert_close(module.weight, before)
    checkpoint.load_into(module, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, "file")
    assert module.weight.dtype == torch.bfloat16 and module.weight.sum() == 2


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("IoError: No space left on device (os error 28)")],
)
def test_a_full_disk_is_told_and_leaves_the_old_file_and_nothing_beside_it(
    error: Exception, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model.read_bytes()

    def disk_full(tensors: Any, path: str, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", disk_full)
    with pytest.raises(OutputError, match=r"dit\.safetensors: cannot be written.*No space left.*free disk space"):
        checkpoint.save_checkpoint(model, PARTS)
    assert model.read_bytes() == before
    assert [p.name for p in model.parent.iterdir()] == [model.name]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    checkpoint.save_checkpoint(tmp_path / "new.safetensors", PARTS)
    assert (tmp_path / "new.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode
