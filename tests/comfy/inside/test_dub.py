"""Dubbing and given movement as nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_setup import DEMO, Graph, files, node, save_video
from sampling_setup import streams

ROOT = Path(__file__).resolve().parents[3]


def graph(**inputs: Any) -> Graph:
    """Six frames of a portrait that stands still say the first words of the demo speech."""
    values = {"model": DEMO, "seed": 1, "length": "cut", "steps": 1}
    return {
        **files(),
        "film": node("RepeatImageBatch", image=["picture", 0], amount=6),
        "dub": node("LetsTalkDub", images=["film", 0], audio=["speech", 0], **{**values, **inputs}),
        "save": save_video(["dub", 0], "dubbed"),
    }


def test_frames_become_a_saved_video_whose_mouth_moves(run_graph: Any, base: Path, sub: Any) -> None:
    outputs = run_graph(graph())
    video, fps, frames = (values[0] for values in outputs["dub"])
    assert (fps, frames) == (25.0, 6) and video.get_dimensions() == (256, 256)
    saved = base / "output" / run_graph.ui["save"]["images"][0]["filename"]
    assert streams(saved)[0] == 6 and streams(saved)[2] == pytest.approx(0.24, abs=0.07)
    read = sub("letstalk_core.media.video.reader").read_video
    apart = torch.stack(list(read(saved, fps=None))).float().mean(-1) - 255 * outputs["picture"][0][0].mean(-1)
    changed = (apart - apart[:, :110].median()).abs().mean(0)  # encoding takes a level of brightness
    assert changed[170:220, 96:160].mean() > 1.5 * changed[:110].mean()


def test_the_template_runs(run_graph: Any) -> None:
    graph = json.loads((ROOT / "workflows" / "api" / "11_dub.json").read_text(encoding="utf-8"))
    short = {"LetsTalkPortraitVideo": {"max_seconds": 0.2, "steps": 1}, "LetsTalkDub": {"steps": 1}}
    short["TrimAudioDuration"] = {"duration": 0.16}
    for entry in graph.values():
        entry["inputs"].update(short.get(entry["class_type"], {}))
    outputs = run_graph(graph)
    (name,) = (key for key, entry in graph.items() if entry["class_type"] == "LetsTalkDub")
    assert outputs[name][2][0] == 4


def test_one_of_video_and_images_is_needed(sub: Any) -> None:
    audio = {"waveform": torch.zeros(1, 1, 8000), "sample_rate": 16000}
    with pytest.raises(Exception, match="video, images: connect one of them"):
        sub("nodes.adapters.dub").dub_video(audio=audio, model=DEMO, seed=0, length="cut", node_id="1")


def curves(comfy_nodes: dict[str, Any], **inputs: Any) -> Any:
    execute = comfy_nodes["LetsTalkMotionCurves"].execute
    return execute(["neutral"], [1.0], [False], **inputs).args[0]


def test_curves_come_as_lists_numbers_or_both(comfy_nodes: dict[str, Any]) -> None:
    as_list = curves(comfy_nodes, yaw=[[0.0, 0.2, 0.4]], blink=[1.0])
    as_output_list = curves(comfy_nodes, yaw=[0.0, 0.2, 0.4], blink=[torch.tensor([1.0])])
    assert as_list.columns["yaw"].tolist() == pytest.approx([0, 0.2, 0.4]) and as_list.columns[
        "blink"
    ].tolist() == [1]
    assert as_list.fingerprint == as_output_list.fingerprint
    happy = comfy_nodes["LetsTalkMotionCurves"].execute(["happy"], [0.5], [True], yaw=[[0.0, 0.2]]).args[0]
    assert happy.mirrored and happy.added["smile"] > 0 and happy.fingerprint != as_list.fingerprint
    for wrong, words in (
        ({"yaw": ["left"]}, "yaw: needs a number"),
        ({"blink": [[2.0]]}, "blink is 2 at frame 0"),
    ):
        with pytest.raises(Exception, match=words):
            curves(comfy_nodes, **wrong)
    with pytest.raises(Exception, match="strength: is 9"):
        comfy_nodes["LetsTalkMotionCurves"].execute(["happy"], [9.0], [True])
