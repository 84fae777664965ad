"""Any JSON, text or bytes where a file of ours is expected: accepted, or refused with an error of ours."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from letstalk_core.errors import LetsTalkError
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.networks.checkpoint import read_header
from letstalk_core.networks.configs import AudioEncoderConfig, AudioProjectionConfig, AutoencoderConfig, DiTConfig
from letstalk_core.sampling.memory_bank import FORMAT, MemoryBank
from letstalk_research.data.manifest import ClipRecord, Manifest
from letstalk_research.training.recipe import load_recipe

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63), 2**63, 1e308])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ours = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
refused = contextlib.suppress(LetsTalkError)


def safetensors(header: Any, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@given(header=values, body=st.binary(max_size=64))
@ours
def test_any_json_as_a_header(tmp_path: Path, header: Any, body: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(header, body))
    with refused:
        read_header(path)


@given(data=st.binary(max_size=200))
@ours
def test_any_bytes_as_a_model_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with refused:
        read_header(path)


@given(
    state=st.fixed_dictionaries(
        {},
        optional={
            name: values
            for name in (
                "recent", "anchors", "settings", "clips_written", "early", "seed", "latent_space", "portrait"
            )
        },
    )
    | values
)  # fmt: skip
@ours
def test_any_json_as_the_state_of_a_memory_bank(tmp_path: Path, state: Any) -> None:
    bank = MemoryBank(2, 1)
    bank.reset(torch.zeros(1, 2, 2, 2))
    path = tmp_path / "bank.safetensors"
    bank.save(path)
    good = read_header(path).metadata[FORMAT]
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    merged = {**json.loads(good), **state} if isinstance(state, dict) else state
    header["__metadata__"] = {FORMAT: json.dumps(merged)}
    path.write_bytes(safetensors(header, data[8 + length :]))
    with refused:
        assert torch.isfinite(MemoryBank.load(path).read()).all()


@pytest.mark.parametrize("config", [AutoencoderConfig, AudioEncoderConfig, AudioProjectionConfig, DiTConfig])
@given(data=st.data())
@ours
def test_any_values_as_a_config(config: Any, data: st.DataObject) -> None:
    names = st.sampled_from([*config.__dataclass_fields__, "unknown"])
    with refused:
        config.from_dict(data.draw(st.dictionaries(names, values, max_size=6)))


@given(value=values | st.dictionaries(st.sampled_from(["id", "clip", "frames", "fps", "latents"]), values))
@ours
def test_any_json_as_a_line_of_a_manifest(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps(value) + "\n")
    with refused:
        (record,) = Manifest(tmp_path)
        assert isinstance(record, ClipRecord)
        assert (tmp_path / record.clip).resolve().is_relative_to(tmp_path.resolve())


@given(value=values)
@ours
def test_any_json_as_the_description_of_a_run(tmp_path: Path, value: Any) -> None:
    (tmp_path / "run.json").write_text(json.dumps(value))
    with refused:
        WorkFolder(tmp_path).begin({"seed": 1})


@given(text=st.text(max_size=80), stage=st.sampled_from(["autoencoder", "audio", "dit"]))
@ours
def test_any_text_as_a_recipe(tmp_path: Path, text: str, stage: str) -> None:
    (tmp_path / "recipe.toml").write_bytes(text.encode(errors="surrogatepass"))
    with refused:
        load_recipe(stage, tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    "make",
    [
        lambda text: text + "a." * 5000 + "a = 1\n",
        lambda text: text + "x = " + "[" * 100_000 + "\n",
        lambda text: "#" * 10**7 + "\n" + text,
    ],
)
def test_recipes_that_would_take_minutes_to_parse_are_refused(tmp_path: Path, make: Callable[[str], str]) -> None:
    (tmp_path / "recipe.toml").write_text(make("[loop]\nsteps = 1\n"))
    with pytest.raises(LetsTalkError, match=r"recipe\.toml"):
        load_recipe("dit", tmp_path / "recipe.toml")
