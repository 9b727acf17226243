"""Facts about targets, and targets that are all alike."""

from __future__ import annotations

from metaprime.data.rows import Example
from metaprime.tasks.regression.audit import columns, facts, labels
from metaprime.tasks.regression.settings import RegressionConfig

CONFIG = RegressionConfig(range=(0, 5))


def test_facts_and_findings_of_targets() -> None:
    texts = [Example(("a b",), 1.0), Example(("c",), 4.0)]
    found = facts(texts)
    assert found["targets"] == {"least": 1, "mean": 2.5, "largest": 4}
    assert columns(found) == {"words": "3", "targets": "least 1, mean 2.5, largest 4"}
    assert labels("en/train", texts) == labels("en/train", []) == []
    (finding,) = labels("en/train", texts[:1] * 2)
    assert (finding.severity, finding.kind, finding.count) == ("fatal", "one target", 2)
    assert facts([])["targets"] == {}
