"""Tables of refusals: a column for each command where many share a mistake, a row for each of the others."""

from __future__ import annotations

from refusals import SHARED, tables


def test_a_shared_mistake_is_one_row_and_the_others_are_one_each() -> None:
    found = {f"{number}: no config": number / 10 for number in range(SHARED)} | {"predict: no cell": 0.55}
    shared, others = tables(found)
    assert "| no config | 0.0 | 0.1 | 0.2 | 0.3 | 0.4 |" in shared
    assert "no cell" not in shared
    assert "| predict | no cell | 0.6 |" in others
    assert "no config" not in others
