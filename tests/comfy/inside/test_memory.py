"""Nodes of the memory bank: settings, and banks in files whose names stay in their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def nodes(sub: Any) -> Any:
    return sub("nodes.memory")


@pytest.fixture
def bank(sub: Any) -> Any:
    found = sub("letstalk_core.sampling.memory_bank").MemoryBank(2, 1, seed=5)
    found.latent_space = "an autoencoder"
    found.reset(torch.randn(1, 4, 2, 3))
    found.write(torch.randn(1, 3, 4, 2, 3))
    return found


def test_settings_are_the_models_own_unless_given(nodes: Any) -> None:
    own = nodes.LetsTalkMemorySettings.execute(-1.0, False, -1, -1).result[0]
    assert (own.noise_sigma, own.recent_frames, own.anchor_frames) == (None, None, None)
    given = nodes.LetsTalkMemorySettings.execute(0.0, True, 3, 0).result[0]
    assert (given.noise_sigma, given.recent_frames, given.anchor_frames) == (0.0, 3, 0) and given.match_statistics


def test_a_saved_bank_is_listed_and_loads_as_it_was(nodes: Any, bank: Any, base: Path, sub: Any) -> None:
    output = nodes.LetsTalkSaveMemory.execute(bank, "letstalk/talk")
    assert "1 clips" in output.ui.value
    name = sub("nodes.adapters.memory_files").list_banks()[0]
    assert name.startswith("output/letstalk/talk_")
    assert name in nodes.LetsTalkLoadMemory.define_schema().inputs[0].options
    loaded = nodes.LetsTalkLoadMemory.execute(name).result[0]
    assert loaded.latent_space == "an autoencoder"
    assert torch.equal(loaded.read(), bank.read())
    seen = nodes.LetsTalkLoadMemory.fingerprint_inputs(memory_file=name)
    assert seen == nodes.LetsTalkLoadMemory.fingerprint_inputs(memory_file=name)
    nodes.LetsTalkSaveMemory.execute(bank, "letstalk/talk")
    assert len(list((base / "output" / "letstalk").glob("talk_*.safetensors"))) == 2


@pytest.mark.parametrize("prefix", ["../outside", "/tmp/outside", "a/../../outside"])
def test_names_cannot_leave_the_output_folder(nodes: Any, bank: Any, sub: Any, prefix: str) -> None:
    with pytest.raises(sub("letstalk_core.errors").ConfigError, match="filename_prefix"):
        nodes.LetsTalkSaveMemory.execute(bank, prefix)


@pytest.mark.parametrize(
    "name", ["../../secret.safetensors", "/etc/passwd", "output/letstalk/../x.safetensors", ""]
)
def test_only_listed_files_are_loaded(nodes: Any, sub: Any, name: str) -> None:
    with pytest.raises(sub("letstalk_core.errors").CheckpointError, match="memory_file"):
        nodes.LetsTalkLoadMemory.execute(name)


def test_a_file_that_is_no_bank_is_an_error_and_not_listed(nodes: Any, base: Path, sub: Any) -> None:
    folder = base / "output" / "letstalk"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.zeros(1)}, str(folder / "other.safetensors"))
    assert "output/letstalk/other.safetensors" not in sub("nodes.adapters.memory_files").list_banks()
    with pytest.raises(sub("letstalk_core.errors").CheckpointError, match="not a memory bank"):
        nodes.LetsTalkLoadMemory.execute("output/letstalk/other.safetensors")
