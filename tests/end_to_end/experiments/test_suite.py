"""All four experiments from trainings to pages, at a size that says nothing about the paper."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from letstalk_core.cli.__main__ import main
from letstalk_core.errors import ConfigError, OutputError
from letstalk_research.experiments import attention, laboratory, memory, prediction, suite
from letstalk_research.experiments.page import BEGIN, END, Section, write_page
from letstalk_research.experiments.variants import Budget


@dataclasses.dataclass
class Finished:
    runs: Path
    docs: Path
    pages: dict[str, str]

    def rows(self, name: str) -> list[str]:
        return [line for line in self.pages[name].splitlines() if line.startswith("| ")]


def run(world: Any, budget: Budget, runs: Path, docs: Path, names: tuple[str, ...]) -> list[Path]:
    return suite.run_experiments(
        names, budget, data=world.data, autoencoder=world.autoencoder, audio_encoder=world.audio_encoder,
        runs=runs, docs=docs, command="letstalk experiment all --steps 2",
    )  # fmt: skip


@pytest.fixture(scope="module")
def small(budget: Budget) -> Budget:
    return dataclasses.replace(budget, steps=2)


@pytest.fixture(scope="module")
def finished(world: Any, small: Budget, tmp_path_factory: pytest.TempPathFactory, espeak: None) -> Finished:
    folder = tmp_path_factory.mktemp("suite")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prediction, "STEPS", (2, 3))
        patched.setattr(prediction, "ANCESTRAL", {"epsilon": 4, "epsilon-variance": 4})
        patched.setattr(memory, "SIGMAS", (0.2,))
        patched.setattr(attention, "SIDES", (4, 8))
        pages = run(world, small, folder / "runs", folder / "docs", tuple(suite.EXPERIMENTS))
    return Finished(folder / "runs", folder / "docs", {p.stem: p.read_text(encoding="utf-8") for p in pages})


@pytest.mark.parametrize("name", suite.EXPERIMENTS)
def test_a_page_has_command_budget_tables_and_small_plots(name: str, finished: Finished) -> None:
    page = finished.pages[name]
    assert "letstalk experiment all --steps 2" in page and "2 steps of 2 clips" in page
    assert "training seed 1" in page and "3 drawn clips, 2 for the validation" in page
    assert re.search(r"- machine: .+\n- date: \d+ \w+ \d{4}|- date: \d+ \w+ \d{4}", page)
    assert "nan" not in page.lower().replace("seconds", "")
    assert page.index("## Findings") < page.index(BEGIN) < page.index(END)
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert pictures
    for picture in pictures:
        path = finished.docs / "experiments" / picture
        assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size < 100_000


def test_fusion_compares_all_nine_pairs(finished: Finished) -> None:
    rows = finished.rows("fusion")
    pairs = {f"{p}, {a}" for p in ("direct", "siamese", "symbiotic") for a in ("direct", "siamese", "symbiotic")}
    shown = [row.split("|")[1].strip().strip("*") for row in rows]
    assert {pair: shown.count(pair) for pair in pairs} == {p: 2 if p == "symbiotic, direct" else 3 for p in pairs}
    assert any(row.startswith("| **symbiotic, direct** |") for row in rows)
    assert shown.count("autoencoder alone") == 1


def test_memory_prediction_and_attention_show_their_variants(finished: Finished) -> None:
    memories = finished.rows("memory")
    assert sum(row.startswith("| no memory |") for row in memories) == 3
    assert any(row.startswith("| 0.2 |") for row in memories)
    predictions = finished.rows("prediction")
    assert sum("| Euler 3 |" in row for row in predictions) == 5 + 2  # beside DDPM the same people again
    assert sum("| DDPM 4 |" in row for row in predictions) == 2
    assert any("64 tokens" in row for row in finished.rows("attention"))


def test_a_second_run_repeats_nothing_and_keeps_the_words(
    world: Any, small: Budget, finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(finished.docs, docs)
    page = docs / "experiments/fusion.md"
    page.write_text(page.read_text().replace("Not written yet.", "The second scheme wins.") + "\nMore below.\n")
    for name in ("Speaker", "measure_ceiling", "measure_speech"):
        monkeypatch.delattr(laboratory, name)
    monkeypatch.setattr("letstalk_research.experiments.runs.train", None)
    run(world, small, finished.runs, docs, ("fusion",))
    text = page.read_text()
    assert "The second scheme wins." in text and text.endswith("\nMore below.\n")

    def results(page: str) -> str:
        return re.sub(r"- date: .*", "", page[page.index(BEGIN) : page.index(END)])

    assert results(text) == results(finished.pages["fusion"])


def test_a_folder_of_another_budget_is_refused(
    world: Any, budget: Budget, finished: Finished, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="other settings"):
        run(world, dataclasses.replace(budget, steps=3), finished.runs, tmp_path, ("fusion",))


def test_models_that_did_not_encode_the_data_are_refused(world: Any, budget: Budget, tmp_path: Path) -> None:
    swapped = dataclasses.replace(world, autoencoder=world.audio_encoder)
    with pytest.raises(ConfigError, match="is not the autoencoder that encoded"):
        run(swapped, budget, tmp_path, tmp_path, ("fusion",))


def test_a_page_without_marks_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("My own words.")
    with pytest.raises(OutputError, match="no marks"):
        write_page(Section("x", "X", "Why?", "So."), tmp_path, command="c", facts={})
    assert (tmp_path / "x.md").read_text() == "My own words."


def test_the_command_on_the_pages_has_no_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        suite, "run_experiments", lambda names, budget, **rest: seen.update(rest, names=names, b=budget)
    )
    changes = ["--people", "6", "--predict", "v"]
    files = ["--data", str(tmp_path), "--autoencoder", str(tmp_path / "a"), "--audio-encoder", str(tmp_path / "b")]
    assert main(["experiment", "all", *files, "--minutes-per-model", "1.5", *changes, "-o", str(tmp_path)]) == 0
    assert seen["names"] == ("fusion", "memory", "attention", "prediction") and seen["b"].people == 6
    assert seen["b"].predict == "v"
    assert seen["command"] == (
        "letstalk experiment fusion memory attention prediction --data DATA --autoencoder FILE --audio-encoder"
        " FILE --minutes-per-model 1.5 --predict v --people 6 -o RUNS --docs docs"
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["fusion"], "--steps"), (["colour", "--steps", "4"], "colour"), (["fusion", "--steps", "-3"], "steps=-3")],
)
def test_bad_arguments_give_one_line(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--data", str(tmp_path), "--autoencoder", "a", "--audio-encoder", "b", "-o", str(tmp_path)]
    try:
        code = main(["experiment", *arguments, *files])
    except SystemExit as error:
        code = int(error.code or 0)
    message = capsys.readouterr().err
    assert code == 2 and message.count("\n") == 1 and word in message
