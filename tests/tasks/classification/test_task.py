"""Classification: loss, pooling and answers, and a whole run from priming to predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from metaprime.config.sections import Config
from metaprime.data.rows import Example
from metaprime.priming.prime import prime
from metaprime.runs.artifact import load_artifact
from metaprime.tasks import task_kind
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.classification.task import loss, to_json
from metaprime.transfers.export import export
from metaprime.transfers.predict import load
from metaprime.transfers.transfer import transfer
from metaprime.types import IGNORE, MetaprimeError

CONFIG = ClassificationConfig(labels=("bad", "good"))
LABELS = ("same", "other")
TASK = "task={name: classification, labels: [person, organisation, thing], metric: macro_f1}"


def test_the_loss_is_the_mean_over_labelled_texts() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([[2], [IGNORE], [0], [1]])
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(loss(logits, {"labels": labels}), F.cross_entropy(logits[kept], labels[kept, 0]))
    assert float(loss(logits, {"labels": torch.full((4, 1), IGNORE)})) == 0


def test_a_line_of_predictions() -> None:
    assert to_json(Example(("x", "y"), "good"), "bad") == {"text": "x", "pair": "y", "gold": "good", "predicted": "bad"}
    assert to_json(Example(("x",), "good"), "bad") == {"text": "x", "gold": "good", "predicted": "bad"}


def test_the_headline_is_the_configs() -> None:
    assert task_kind(CONFIG).metric.name == "accuracy"
    assert task_kind(CONFIG.model_copy(update={"metric": "matthews"})).metric.label == "Matthews"


def test_primed_transferred_and_predicted(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", TASK, "outer.steps=2", "transfer.methods=[lora]")
    prime(config)
    (result, *_) = transfer(config)
    scores = result.record["scores"]
    assert 0 <= scores["macro_f1"] <= 100
    assert scores["majority"]["class"] in ("person", "organisation", "thing")
    folder = Path(result.path)
    assert load_artifact(folder).labels == ("person", "organisation", "thing")
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == scores["texts"]
    predictor = load(folder)
    # A text is read as it is: what is predicted for it now is what the transfer predicted.
    assert predictor([line["text"] for line in lines]) == [line["predicted"] for line in lines]
    with pytest.raises(MetaprimeError, match="a text is empty"):
        predictor(" ")
    with pytest.raises(
        MetaprimeError, match=r"only heads over words for AdapterHub.*; no other format.*`metaprime predict`"
    ):
        export(folder, tmp_path / "out", "adapterhub")


def pairs(tiny: Callable[..., Config], root: Path, *changes: str) -> Config:
    """Writes a corpus of pairs in two languages, and returns a config that primes on the one and tunes on the other."""
    for language, split in (("fr", "train"), ("en", "train"), ("en", "test")):
        (root / language).mkdir(exist_ok=True)
        rows = [
            {"a": "mali bono " * (number % 5 + 1), "b": f"dabi {number}", "label": LABELS[number % 2]}
            for number in range(60)
        ]
        (root / language / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    return tiny(
        root / "run",
        "task={name: classification, labels: [same, other], text: a, pair: b}",
        f"data={{source: 'jsonl:{root}', languages: [fr], validation_languages: [], target_languages: [en]}}",
        *("outer.steps=2", "outer.validate_every=0", "transfer.methods=[pfeiffer]", "transfer.lr=0.01"),
        *changes,
    )


def test_pairs_are_primed_and_predicted(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = pairs(tiny, tmp_path)
    prime(config)
    (result, *_) = transfer(config)
    predictor = load(result.path)
    assert set(predictor([["mali", "bono"], ["dabi", "mali bono"]])) <= set(LABELS)
    with pytest.raises(MetaprimeError, match=r"this task reads pairs \(a, b\): give 2 texts for each answer, not 1"):
        predictor(["mali"])
