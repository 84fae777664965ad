"""Start values from SANA: the same function as diffusers' blocks, and a report that leaves nothing out."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.cli.__main__ import main
from letstalk_core.errors import CheckpointError
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.transformer.dit import LetsTalkDiT
from letstalk_research.training.warm_start import from_sana, group_names, load_sana, warm_start
from tests.unit.training.conftest import TINY, write_clip

diffusers = pytest.importorskip("diffusers")
CONFIG = DiTConfig(
    hidden_size=64,
    depth=2,
    num_heads=2,
    in_channels=4,
    mlp_ratio=2.5,
    audio_token_dim=12,
    portrait_fusion="direct",
)


def sana(**changes: Any) -> Any:
    """A tiny public model with random weights."""
    torch.manual_seed(3)
    settings = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "num_layers": 2,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 32,
        "cross_attention_dim": 64,
        "caption_channels": 8,
        "sample_size": 4,
    }
    return diffusers.SanaTransformer2DModel(**{**settings, **changes}).eval().requires_grad_(False)


def fresh(**changes: Any) -> LetsTalkDiT:
    dit = LetsTalkDiT(dataclasses.replace(CONFIG, **changes)).requires_grad_(False)
    dit.init_weights()
    return dit.eval()


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder / "diffusion_pytorch_model.safetensors"


def original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers state dict under the names of the authors' own files."""
    outer = {
        "patch_embed.proj": "x_embedder.proj",
        "time_embed.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_embed.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_embed.linear": "t_block.1",
        "caption_projection.linear_1": "y_embedder.y_proj.fc1",
        "caption_projection.linear_2": "y_embedder.y_proj.fc2",
        "caption_norm": "attention_y_norm",
        "proj_out": "final_layer.linear",
        "attn1.to_out.0": "attn.proj",
        "attn2.to_q": "cross_attn.q_linear",
        "attn2.to_out.0": "cross_attn.proj",
        "ff.conv_inverted": "mlp.inverted_conv.conv",
        "ff.conv_depth": "mlp.depth_conv.conv",
        "ff.conv_point": "mlp.point_conv.conv",
        "transformer_blocks.": "blocks.",
    }
    out = {"pos_embed": torch.zeros(1), "y_embedder.y_embedding": torch.zeros(1)}
    for key, value in state.items():
        new = "final_layer.scale_shift_table" if key == "scale_shift_table" else key
        for theirs, ours in outer.items():
            new = new.replace(theirs, ours)
        if ".to_q." in new and "attn1" in new:
            out[new.replace("attn1.to_q", "attn.qkv")] = torch.cat(
                [state[key.replace("to_q", f"to_{p}")] for p in "qkv"]
            )
        elif ".to_k." in new and "attn2" in new:
            parts = [state[key.replace("to_k", f"to_{p}")] for p in "kv"]
            out[new.replace("attn2.to_k", "cross_attn.kv_linear")] = torch.cat(parts)
        elif "attn1" not in new and "attn2" not in new:
            out[new] = value
    return out


@pytest.mark.parametrize("timestep", [0.0, 417.5, 999.0])
def test_blocks_compute_what_the_public_model_computes_without_text(timestep: float, tmp_path: Path) -> None:
    model, dit = sana(), fresh()
    for block in model.transformer_blocks:
        block.attn2.to_out[0].weight.zero_()
        block.attn2.to_out[0].bias.zero_()
    warm_start(dit, saved(model, tmp_path))
    x, hidden = torch.randn(2, 4, 4, 3), []
    model.transformer_blocks[-1].register_forward_hook(lambda *call: hidden.append(call[-1]))
    time = torch.tensor([timestep, timestep / 2])
    model(x, torch.randn(2, 5, 8), time)
    tokens, memory = dit.patch_embed(x)[:, None], torch.zeros(2, 0, 12, 64)
    embedding = dit.time_embed(time, x.dtype)
    for block in dit.blocks:
        block.temporal_out.weight.zero_()  # as at the start; and nothing of the conditions:
        contexts = {}
        for name, attention in block.guide_attention.items():
            attention.out.weight.zero_()
            contexts[name] = attention.key_value(torch.randn(2, 3, attention.key.in_features))
        tokens, memory, _ = block(tokens, memory, None, embedding, contexts, (4, 3))
    torch.testing.assert_close(tokens[:, 0], hidden[0], rtol=1e-5, atol=1e-5)


def test_the_report_names_every_tensor_of_both_sides(tmp_path: Path) -> None:
    model, dit = sana(), fresh()
    before = {k: v.clone() for k, v in dit.state_dict().items()}
    report = warm_start(dit, saved(model, tmp_path))
    after = dit.state_dict()
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert changed == set(report.loaded)
    assert (report.differing, report.missing) == ((), ())
    of_text = ("attn2", "caption", "proj_out")
    unused = [k for k in model.state_dict() if any(part in k for part in of_text)] + ["scale_shift_table"]
    assert sorted(report.unused) == sorted(unused)
    assert "blocks.0-1.spatial_attention.qkv.weight" in report.lines()[0]


def test_layers_of_other_shapes_are_named_and_their_gates_stay_closed(tmp_path: Path) -> None:
    dit = fresh(mlp_ratio=4.0, depth=3)
    report = warm_start(dit, saved(sana(patch_size=2), tmp_path))
    text = "\n".join(report.lines())
    ffn = "blocks.0-1.feed_forward.conv_inverted.weight"
    assert f"the file has [320, 64, 1, 1], needed is [512, 64, 1, 1]: {ffn}" in text
    assert "the file has [64, 4, 2, 2], needed is [64, 4, 1, 1]: patch_embed.proj.weight" in text
    assert "the file has none: blocks.2.spatial_attention.qkv.weight" in text
    rows = dit.blocks[0].modulation.linear.weight
    assert rows[: 3 * 64].abs().max() > 0 and rows[3 * 64 :].abs().max() == 0
    assert dit.blocks[2].modulation.linear.weight.abs().max() == 0


def test_a_deeper_donor_and_its_further_norms_are_reported(tmp_path: Path) -> None:
    report = warm_start(fresh(), saved(sana(num_layers=4, qk_norm="rms_norm_across_heads"), tmp_path))
    names = group_names(report.unused)
    assert "blocks.2-3.feed_forward.conv_point.weight" in names
    assert "transformer_blocks.0-3.attn1.norm_q.weight" in names


def test_the_authors_own_names_give_the_same_weights(tmp_path: Path) -> None:
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    state = sana().state_dict()
    theirs = original(state)
    back = single_file.convert_sana_transformer_to_diffusers(dict(theirs))
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)
    torch.save({"state_dict": theirs}, tmp_path / "sana.pth")
    found, expected = from_sana(load_sana(tmp_path / "sana.pth"))[0], from_sana(state)[0]
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)


def test_shards_in_a_folder_are_one_model(tmp_path: Path) -> None:
    state = sana().state_dict()
    keys = sorted(state)
    for i, part in enumerate((keys[:20], keys[20:])):
        save_file({k: state[k].contiguous() for k in part}, tmp_path / f"model-0000{i}.safetensors")
    assert load_sana(tmp_path).keys() == state.keys()


def test_what_cannot_be_used_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    dit = fresh()
    before = {k: v.clone() for k, v in dit.state_dict().items()}
    save_file({f"layer.{i}.weight": torch.zeros(1) for i in range(7)}, tmp_path / "other.safetensors")
    (tmp_path / "empty").mkdir()
    wide = sana(num_attention_heads=4, cross_attention_dim=128, num_cross_attention_heads=4)
    cases = {
        tmp_path / "other.safetensors": r"other.*not a SANA transformer.*layer\.0\.weight.*layer\.4\.weight'\]",
        tmp_path / "empty": "holds no .safetensors file",
        tmp_path / "absent.safetensors": "no such file",
        saved(wide, tmp_path / "wide"): r"no spatial attention and no Mix-FFN.*is \[\d+, 128.*same width",
    }
    for path, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            warm_start(dit, path)
    assert all(torch.equal(v, before[k]) for k, v in dit.state_dict().items())


def test_training_starts_from_it_and_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(2):
        write_clip(tmp_path / "data", f"clip{i}", split="val" if i == 0 else "train")
    recipe = tmp_path / "dit.toml"
    recipe.write_text(TINY["dit"])
    values = [f"data.folder={tmp_path / 'data'}", "data.batch_size=1", "data.workers=0"]
    values += [f"loop.run={tmp_path / 'run'}", "loop.steps=1", "loop.device=cpu", "loop.precision=fp32"]
    sets = [word for value in values for word in ("--set", value)]
    model = sana(num_attention_heads=1, cross_attention_dim=32, num_cross_attention_heads=1, num_layers=1)
    path = saved(model, tmp_path / "sana")
    with caplog.at_level(logging.INFO, logger="letstalk_core"):
        assert main(["train", "dit", "--config", str(recipe), "--init-from", str(path), *sets]) == 0
    assert "blocks.0.spatial_attention.qkv.weight" in caplog.text
    assert "needed is [128, 32, 1, 1]: blocks.0.feed_forward.conv_inverted.weight" in caplog.text
    assert (tmp_path / "run").is_dir()


def test_other_stages_and_two_start_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "audio", "--config", "demo_audio", "--init-from", "x.safetensors"]) == 2
    assert "--init-from: is for the dit stage, not 'audio'" in capsys.readouterr().err
    arguments = ["--init-from", "x.safetensors", "--set", "loop.init=y.safetensors"]
    assert main(["train", "dit", "--config", "demo_dit", *arguments]) == 2
    assert "set one of them" in capsys.readouterr().err
