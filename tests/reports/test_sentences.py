"""Sentences side by side: those that two arms answer differently, gold first."""

from __future__ import annotations

from toy_suite import section

from metaprime.reports.document import Report
from metaprime.reports.read import Suite
from metaprime.reports.sections import gather


def test_sentences_are_those_that_differ(suite: Suite, report: Report) -> None:
    found = section(report, "sentences")
    assert 0 < len(found.examples) <= 12
    for example in found.examples:
        assert [one.label for one in example.versions] == ["gold", "no priming", "meta-priming"]
        gold, one, other = ([p.text for p in r.pieces] for r in example.versions)
        assert " ".join(gold) == " ".join(one) == " ".join(other)
        assert example.versions[1].pieces != example.versions[2].pieces
    # The key is fixed.
    assert section(gather(suite), "sentences") == found
