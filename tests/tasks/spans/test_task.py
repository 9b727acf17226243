"""Span pairs: the state that the head reads, and lines of predictions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from metaprime.data.rows import Example
from metaprime.tasks.spans.audit import AUDIT
from metaprime.tasks.spans.encoding import SPAN_MARKS
from metaprime.tasks.spans.settings import SpansConfig
from metaprime.tasks.spans.task import SPAN_PAIRS, both_spans, to_json

CONFIG = SpansConfig()
IDS = {"false": 0, "true": 1}


def test_the_head_reads_the_mean_of_each_span() -> None:
    hidden = torch.randn(2, 4, 3)
    marked = torch.tensor([[0, 1, 3, 2], [1, 2, 2, 2]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    model: Any = SimpleNamespace(head=lambda states: states, encode=lambda batch: hidden)
    found = both_spans(model, {SPAN_MARKS: marked, "attention_mask": mask})
    torch.testing.assert_close(found[0], torch.cat([hidden[0, 1:3].mean(0), hidden[0, 2:4].mean(0)]))
    torch.testing.assert_close(found[1], torch.cat([hidden[1, 0], hidden[1, 1:3].mean(0)]))


def test_lines_and_facts() -> None:
    example = Example(("Ada fed her cat", "0:1", "2:4"), "true")
    line = to_json(example, "false")
    assert line == {
        "text": "Ada fed her cat",
        "spans": ["Ada", "her cat"],
        "places": [[0, 1], [2, 4]],
        "gold": "true",
        "predicted": "false",
    }
    errors = SPAN_PAIRS.errors
    assert errors
    assert [piece.text for piece in errors.show(line, "gold")] == ["Ada fed her cat", "Ada", "her cat"]
    assert AUDIT.facts([example])["words"] == 4
