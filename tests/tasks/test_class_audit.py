"""What the audits of all tasks with classes share."""

from __future__ import annotations

from collections import Counter

import pytest

from metaprime.tasks.class_audit import balance, class_columns, class_findings, unknown_subwords


def test_balance_and_its_cells() -> None:
    facts = {"words": 1200, **balance(Counter({"b": 3, "a": 1}))}
    assert facts == {"words": 1200, "classes": {"a": 1, "b": 3}, "majority": 0.75}
    assert class_columns(facts) == {"words": "1,200", "in the largest class": "75.0%", "classes": "a 1, b 3"}
    assert balance(Counter())["majority"] == 0


def test_one_class_is_fatal_and_a_missing_one_as_grave_as_the_task_says() -> None:
    (one,) = class_findings("de/train", 9, {"a"}, ("a", "b"), "text", "note")
    assert (one.severity, one.kind) == ("fatal", "one class")
    (missing,) = class_findings("de/train", 9, {"a", "b"}, ("a", "b", "c"), "text", "problem")
    assert (missing.severity, missing.text) == ("problem", "no text of class c")
    assert class_findings("de/train", 0, set(), ("a",), "text", "note") == []


@pytest.mark.parametrize(("unknown", "severity"), [(2, "note"), (3, "problem")])
def test_unknown_sub_words(unknown: int, severity: str) -> None:
    assert [found.severity for found in unknown_subwords("de/train", unknown, 200)] == [severity]
    assert unknown_subwords("de/train", 0, 200) == []
