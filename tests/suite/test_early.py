"""Refusals of arms in one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_plan import plan_at

from metaprime.suite import early
from metaprime.suite.early import refuse_arms
from metaprime.suite.order import Count
from metaprime.types import MetaprimeError


def test_a_mistake_of_some_arms_names_them_and_one_of_all_does_not(tmp_path: Path) -> None:
    plan = plan_at(tmp_path / "runs")
    first, second, *rest = plan.arms
    assert rest
    refuse_arms(plan, lambda arm: [])
    with pytest.raises(MetaprimeError) as error:
        refuse_arms(plan, lambda arm: ["of all", *(["of one"] if arm is plan.arms[first] else ["of the others"])])
    others = "" if len(rest) == 0 else f" and {len(rest)} more"
    assert str(error.value).splitlines() == [
        "of all",
        f"arm {first!r}: of one",
        f"arm {second!r}{others}: of the others",
    ]


def test_a_finished_suite_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "count_cells", lambda plan: {"priming": Count(2, 2, 0)})
    refuse_arms(plan_at(tmp_path / "runs"), lambda arm: ["gone"])
