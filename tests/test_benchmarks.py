"""The harness of the benchmarks: ratios, the table, and when a table may be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import harness, long_runs
from benchmarks.denoiser import _exponents
from benchmarks.harness import Options, Row


def test_every_round_runs_all_and_begins_with_another() -> None:
    calls: list[str] = []
    functions = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times = harness.paired(functions, Options(rounds=3))
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {len(t) for t in times.values()} == {3}


def test_a_ratio_is_the_median_of_the_rounds_with_its_range() -> None:
    assert harness.ratio([2.0, 3.0, 8.0], [1.0, 1.0, 2.0]) == (3.0, "3.00x (2.00 to 4.00)")


def test_cost_that_grows_with_tokens_has_exponent_one() -> None:
    tokens = [64, 256, 1024]
    assert _exponents(tokens, [[n * 1e-6, n**2 * 1e-6] for n in tokens]) == pytest.approx([1.0, 2.0])


def test_outputs_that_differ_are_told() -> None:
    x = torch.randn(100)
    assert harness.identical(x, x)[0]
    assert not harness.identical(x, x + 1e-3)[0]


def test_random_weights_reach_every_parameter() -> None:
    layer = torch.nn.Linear(8, 8, device="meta").to_empty(device="cpu")
    layer.weight.data.fill_(float("nan"))
    harness.randomise(layer)
    assert layer.weight.isfinite().all() and layer.weight.std() > 0.1


def test_the_table_is_written_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{command.BEGIN}\nold\n{command.END}\nafter\n")
    monkeypatch.setattr(command, "README", page)
    row = Row(what="a", against="b", result="2x", reach=">= 3x", reached=False)
    command.write(command.table([row]))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| a | b | 2x | >= 3x | **no** |  |" in text


@pytest.mark.parametrize("arguments", [["--write", "--quick"], ["--write", "--only", "guidance"]])
def test_a_part_of_the_table_is_not_written(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)


def test_a_busy_machine_writes_no_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "machine", lambda options: ("this machine", True))
    with pytest.raises(SystemExit):
        command.main(["--write"])
    assert "busy (this machine)" in capsys.readouterr().err


def test_without_guidance_the_network_runs_once_a_step() -> None:
    (row,) = long_runs.run_guidance(Options(quick=True))
    assert row.reached and row.result == "1" and row.against == "audio guidance: 2"


def test_the_page_has_the_marks_and_names_the_command() -> None:
    text = (Path(command.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert all(text.count(mark) == 1 for mark in (command.BEGIN, command.END))
    assert text.index(command.BEGIN) < text.index(command.END)
