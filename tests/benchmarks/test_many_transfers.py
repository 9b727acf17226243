"""Transfers at once: the fixed cost of a pass follows from the ratio, and the page names the constant that is assumed."""

from __future__ import annotations

import many_transfers
import pytest
from problem import Shape, Size, make_problem

from metaprime.meta.chunks import PASS


def test_the_fixed_cost_follows_from_the_ratio() -> None:
    # Passes of c (40 + s): 8 of 64 sub-words against one of 512.
    faster = 8 * (40 + 64) / (40 + 512)
    one = {"runs": 8, "batch": [4, 16], "faster": {"middle": faster}}
    assert many_transfers.pass_cost(one) == pytest.approx(40)


def test_the_page_has_every_batch_and_the_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_transfers, "SHAPES", ((2, 8),))
    monkeypatch.setattr(many_transfers, "RUNS", (2,))
    problem = make_problem(Shape(1, 2, 8, 1), Size(layers=1, hidden=16, heads=2))
    found = many_transfers.compare(problem, 2, 2, 8, rounds=1)
    result = {
        "command": "python many_transfers.py",
        "size": {"layers": 1, "hidden": 16},
        "machine": {"device": "a processor", "threads": 1},
        "found": [found],
    }
    page = many_transfers.as_markdown(result)
    assert "| 2 x 8 | " in page
    assert f"assumes {PASS} (`meta.chunks.PASS`)" in page
