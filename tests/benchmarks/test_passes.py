"""The cost of a pass: lengths as asked, fits that find a known cost, constants that are set back, break-even points."""

from __future__ import annotations

import math
from pathlib import Path

import passes
import pytest
import torch
from passes import batch_of, break_even, fitted, lengths_of, pass_of, under
from problem import Problem, Shape, Size, make_problem

from metaprime import packing
from metaprime.meta.chunks import CPU_SUBWORDS, PASS


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(Shape(1, 2, 8, 1), Size(layers=1, hidden=16, heads=2))


@pytest.mark.parametrize("episodes", passes.EPISODES)
@pytest.mark.parametrize("subwords", passes.SUBWORDS)
def test_a_pass_has_exactly_the_subwords_asked_for(subwords: int, episodes: int) -> None:
    if subwords < 32 * episodes:
        pytest.skip("not measured")
    lengths = lengths_of(subwords, episodes)
    assert sum(lengths) == subwords
    assert len(lengths) % episodes == 0
    assert 8 <= min(lengths) <= max(lengths) <= 31
    batch = batch_of(lengths, episodes)
    assert batch["input_ids"].shape == (episodes, len(lengths) // episodes, max(lengths))
    assert int(batch["attention_mask"].sum()) == subwords


def test_the_fit_finds_the_fixed_cost_and_what_larger_passes_cost() -> None:
    # 0.5 ms per sub-word and 40 sub-words beside; beyond the limit 10 % cheaper than at it.
    took = {size: 0.5 * (40 + size) for size in (32, 128, 512, CPU_SUBWORDS)}
    at_limit = took[CPU_SUBWORDS] / CPU_SUBWORDS
    took[2 * CPU_SUBWORDS] = 0.9 * at_limit * 2 * CPU_SUBWORDS
    found = fitted(took)
    assert found["fixed"] == pytest.approx(40)
    assert found["beyond"] == pytest.approx(0.9)
    assert math.isnan(fitted({32: 1.0, 64: 2.0})["beyond"])


def test_the_ratio_is_one_between_two_points() -> None:
    assert break_even([(0, 1.2), (10, 1.1), (20, 0.9), (30, 0.8)]) == pytest.approx(15)
    assert break_even([(0, 0.8), (10, 0.9)]) is None


def test_both_ways_of_a_pass_give_the_same_gradients_and_leave_the_constants(problem: Problem) -> None:
    batch = batch_of([12, 3, 5, 9], 2)
    windows, full = packing.WINDOW_COST, packing.NEARLY_FULL
    work = pass_of(problem, batch, frozen=False)
    found = [pass_of(problem, batch, frozen=False, padded=True)(), under("WINDOW_COST", -1, work)()]
    found.append(under("WINDOW_COST", math.inf, work)())
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    assert (windows, full) == (packing.WINDOW_COST, packing.NEARLY_FULL)
    # The weights of the encoder have gradients only if they are not frozen.
    assert len(found[0]) - len(pass_of(problem, batch, frozen=True)()) == len(problem.backbone)


def test_attention_goes_in_the_way_that_is_measured(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[bool] = []
    window_by_window = packing.Packing.window_by_window

    def noted(row: packing.Packing, query_BHLd: torch.Tensor) -> bool:
        ways.append(window_by_window(row, query_BHLd))
        return ways[-1]

    monkeypatch.setattr(packing.Packing, "window_by_window", noted)
    found = passes.by_window(problem, heads=2, repeats=1)
    # One layer; a call to warm up and one that counts, each window by window and then as a batch.
    assert ways == [True, False, True, False] * len(passes.SHORTER)
    assert [one["saved"] for one in found] == sorted(one["saved"] for one in found)


def test_the_page_has_measured_beside_assumed_values(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(passes, "SUBWORDS", (32, 64, 128))
    monkeypatch.setattr(passes, "SHORTER", (32,))
    monkeypatch.setattr(passes, "SHARES", (0.5, 0.95))
    command = ["passes.py", "--layers", "1", "--hidden", "16", "--heads", "2", "--repeats", "1", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    passes.main()
    page = (tmp_path / "passes.md").read_text("utf-8")
    assert capsys.readouterr().out.strip() == page.strip()
    for assumed in (f"assumes {PASS} (", f"pays from {packing.WINDOW_COST} (", f"below {packing.NEARLY_FULL} ("):
        assert assumed in page
    assert page.count("| frozen | ") == page.count("| with gradients | ") == len(passes.EPISODES)
