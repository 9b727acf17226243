"""Facts about right choices, and choices that are always right."""

from __future__ import annotations

from metaprime.data.rows import Example
from metaprime.tasks.choice.audit import AUDIT, each_choice
from metaprime.tasks.choice.settings import ChoiceConfig


def test_each_choice_is_read_with_the_text() -> None:
    assert each_choice([[1], [2], [3]]) == [[[1], [2]], [[1], [3]]]


def test_facts_and_findings() -> None:
    example = Example(("t", "x", "y"), "choice1")
    assert AUDIT.facts([example])["classes"] == {"choice1": 1}
    (finding,) = AUDIT.labels("en/train", [example], ChoiceConfig())
    assert finding.kind == "one class"
