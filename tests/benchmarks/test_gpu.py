"""The script for a GPU, tried on a CPU: FLOPs by formula, figures written one by one, and what is missing is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gpu
import pytest
import torch
from gpu import COMPILED, NOT_MEASURED, ROWS, SMALL, Page
from meta_step import IDIOM, ours
from peers import Step
from problem import Problem, Shape, Size, make_problem

from metaprime.meta import Way
from metaprime.runs.flops import counted

ABOUT = {"command": "python gpu.py", "small": True, "peak": None, "device": "a processor", "versions": {}}


def test_the_formula_agrees_with_torchs_count() -> None:
    problem = make_problem(Shape(2, 2, 32, 2), Size(layers=3, hidden=64, heads=2))
    # Without padding all that is computed is needed.
    support = tuple({**batch, "attention_mask": torch.ones_like(batch["input_ids"])} for batch in problem.batch.support)
    query = {**problem.batch.query, "attention_mask": torch.ones_like(problem.batch.query["input_ids"])}
    full = replace(problem, batch=replace(problem.batch, support=support, query=query, lengths=(), subwords=()))
    _, flops = counted(True, ours(way=Way.ONE_PASS)(full))
    assert flops
    assert gpu.model_flops(full) == pytest.approx(flops, rel=0.03)


def test_padding_needs_no_flops() -> None:
    problem = make_problem(Shape(2, 2, 32, 2), Size(layers=3, hidden=64, heads=2))
    wider = {name: torch.nn.functional.pad(tensor, (0, 16), value=0) for name, tensor in problem.batch.query.items()}
    padded = replace(problem, batch=replace(problem.batch, query=wider))
    assert gpu.model_flops(padded) == gpu.model_flops(problem)


def test_a_trial_writes_each_figure_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shape, other) = SMALL.shapes
    monkeypatch.setattr(gpu, "SMALL", replace(SMALL, shapes=(shape,)))
    monkeypatch.setattr(gpu, "EAGER", {name: make for name, make in gpu.EAGER.items() if name != IDIOM})
    command = ["gpu.py", "--small", "--without-compiled", "--rounds=1", "--peak=1e12", f"--out={tmp_path}"]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main()
    page = (tmp_path / "gpu.md").read_text("utf-8")
    for name in ROWS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {shape} | {name} |")]
        assert (row.count(NOT_MEASURED) == 4) == (name in (COMPILED, IDIOM))
        # Memory is that of a GPU.
        assert (row.count(NOT_MEASURED) == 1) == (name not in (COMPILED, IDIOM))
    assert f"| {shape.sentences} x {shape.length} | {NOT_MEASURED} |" not in page
    assert str(other) not in page
    assert capsys.readouterr().out.count("\n") == 2


@pytest.fixture
def problem() -> Problem:
    return make_problem(SMALL.shapes[0], Size(layers=1, hidden=16, heads=2)).in_bfloat16()


def test_a_contender_that_fails_leaves_the_others_their_figures(problem: Problem, tmp_path: Path) -> None:
    def broken(_: Problem) -> Step:
        raise RuntimeError("no kernel\nfor this")

    found = gpu.meta_steps(problem, {**gpu.EAGER, IDIOM: broken}, 1, peak=1e12)
    assert found[IDIOM] == {"error": "RuntimeError: no kernel"}
    page = Page(tmp_path, ABOUT)
    page.add("meta_steps", str(SMALL.shapes[0]), found)
    text = (tmp_path / "gpu.md").read_text("utf-8")
    assert "does not run: RuntimeError: no kernel" in text
    one = found["ours, packed"]
    assert one["utilisation"] == pytest.approx(gpu.model_flops(problem) / one["seconds"]["middle"] / 1e12)


@pytest.mark.parametrize("given", [["--out=x"], ["--small"]])
def test_a_cpu_writes_no_results(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py", *given])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main()
