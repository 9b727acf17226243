"""Facts and findings about texts with classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from metaprime.data.rows import Example, Lengths
from metaprime.data.subwords import Subwords
from metaprime.preflight.corpus import check_data
from metaprime.tasks.classification import audit
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.task import Text

CONFIG = ClassificationConfig(labels=("bad", "good", "fine"))
TEXTS = [Example(("Well done",), "good"), Example(("No",), "bad"), Example(("Not so",), "bad")]


def test_facts_count_classes() -> None:
    found = audit.facts(TEXTS)
    assert (found["classes"], found["majority"]) == ({"bad": 2, "good": 1}, pytest.approx(2 / 3))
    assert (found["sentences"], found["words"], found["longest_words"]) == (3, 5, 2)
    assert audit.AUDIT.columns(found)["in the largest class"] == "66.7%"


def test_missing_classes_and_one_class() -> None:
    (missing,) = audit.labels("en/train", TEXTS, CONFIG)
    assert (missing.severity, missing.kind) == ("problem", "missing class")
    assert "no text of class fine" in missing.text
    (one,) = audit.labels("en/train", TEXTS[1:], CONFIG)
    assert (one.severity, one.kind) == ("fatal", "one class")
    assert audit.labels("en/train", [], CONFIG) == audit.labels("en/train", TEXTS) == []


def test_texts_that_are_cut(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [Example(("mali bono dabi mali",), "good"), Example(("mali",), "bad"), Example(("mali", "bono"), "bad")]
    (found, *_) = audit.lengths("en/train", texts, Text(Subwords(toy_tokenizer), Lengths(5)))
    assert (found.kind, found.severity) == ("texts cut", "problem")
    assert found.count == sum(len(toy_tokenizer(*one.words)["input_ids"]) > 5 for one in texts) < 3


def test_contradictions_and_overlaps_are_found_in_texts_too(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    for split, labels in (("train", ("good", "bad")), ("test", ("good", "good"))):
        lines = [json.dumps({"text": "Well done", "label": label}) for label in labels]
        (tmp_path / "en" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    report = check_data(f"jsonl:{tmp_path}", ["task.name=classification"])
    assert {"contradictions", "overlap"} <= {finding.kind for finding in report.findings}
    assert report.splits["en/train"]["classes"] == {"bad": 1, "good": 1}
